"""Runs of equal labels, and how PruneVid turns frame clusters into scenes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

OPEN = -1


def runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last index of each run of equal labels."""
    found, start = [], 0
    for _, group in groupby(labels):
        length = len(list(group))
        found.append((start, start + length - 1))
        start += length
    return found


def refine_labels(labels: Sequence[int]) -> list[int]:
    """Makes labels of frames contiguous in time: every run of the result has at least two frames, where there are two.

    Each label keeps its longest runs, if they have at least two frames. All other frames are open; from left to right
    each open stretch takes the label of the longer run beside it (of equals the left one, without any 0).
    Source: PruneVid (arXiv 2412.16117), official code.
    """
    result = [OPEN] * len(labels)
    longest: dict[int, int] = {}
    for first, last in runs(labels):
        longest[labels[first]] = max(longest.get(labels[first], 0), last - first + 1)
    for first, last in runs(labels):
        if last - first + 1 == longest[labels[first]] >= 2:
            result[first : last + 1] = labels[first : last + 1]
    for first, last in [span for span in runs(result) if result[span[0]] == OPEN]:
        beside = {end: start for start, end in runs(result)}  # the current runs by their last frame
        left = first - beside[first - 1] if first else 0
        right = next((b - a + 1 for a, b in runs(result) if a == last + 1), 0)
        label = 0 if not left and not right else result[first - 1] if left >= right else result[last + 1]
        result[first : last + 1] = [label] * (last - first + 1)
    return result
