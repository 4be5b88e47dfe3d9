"""Temporal segmentation: the cut of a video that makes as many tokens redundant as possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK = 32  # frames whose runs are counted at once


@dataclass(frozen=True)
class Segmentation:
    """A video cut into segments.

    Args:
        spans: inclusive (first, last) frames of each segment, in order; together all frames.
        gains: the tokens each segment saves: (frames - 1) * positions that are static throughout.
    """

    spans: list[tuple[int, int]]
    gains: list[int]

    @property
    def redundant(self) -> int:
        """The tokens that all segments together save by merging static positions over time."""
        return sum(self.gains)


def segment(links: Tensor, max_frames: int | None = None) -> Segmentation:
    """Cuts a video into segments that maximise the number of redundant tokens, by dynamic programming.

    A segment of w frames in which c positions stay the same throughout saves (w-1) * c tokens. The best cut up to
    frame e is the best over the length w of its last segment. Of equally good cuts, a single frame at the end is
    preferred, then the shortest segment. Time O(T * (N + longest static run)), memory O(T + N) beside the links.
    Source: HoliTom (arXiv 2505.21334), section 3.2, equations 4-6.

    Args:
        links: (T-1, N) bool; links[t, n]: position n is static from frame t to t+1. On any device (one transfer).
        max_frames: the longest segment in frames; None: any.

    Raises:
        TypeError: when ``links`` is not a bool tensor.
        ValueError: when its shape or ``max_frames`` is out of range.
    """
    if not isinstance(links, Tensor) or links.dtype != torch.bool:
        kind = links.dtype if isinstance(links, Tensor) else type(links).__name__
        raise TypeError(f"segment takes a bool tensor (T-1, N) of static links, got {kind}: use cosine > threshold")
    if links.dim() != 2:
        raise ValueError(f"links must have shape (T-1, N): pairs of frames, positions; got {tuple(links.shape)}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames={max_frames} is no segment length: give 1 or more, or None")
    return segment_links(links.cpu().numpy(), max_frames)


def segment_links(links: np.ndarray, max_frames: int | None = None) -> Segmentation:
    """:func:`segment` for an array (T-1, N) of bools in host memory."""
    frames, positions = links.shape[0] + 1, links.shape[1]
    limit = frames if max_frames is None else min(max_frames, frames)
    best = np.zeros(frames + 1, dtype=np.int64)  # best[e+1]: the most tokens saved in frames 0..e
    length = [1] * frames  # of the last segment in the best cut that ends at frame e
    saved = [0] * frames  # by that segment
    run = np.zeros(positions, dtype=np.int32)  # links that end at frame e without a gap, for each position
    for first in range(1, frames, _BLOCK):
        runs = _runs(links[first - 1 : first - 1 + _BLOCK], run)
        run, longest = runs[-1], min(int(runs.max(initial=0)) + 1, limit) - 1  # in links
        gains = np.arange(1, longest + 1) * _static(runs)[:, 1 : longest + 1]  # by the number of links: 1, 2, ...
        for end, gain in enumerate(gains, first):
            before = best[end]
            total = best[max(0, end - longest) : end][::-1] + gain[:end]
            shortest = int(total.argmax()) if longest else 0
            if longest and total[shortest] > before:
                before, length[end], saved[end] = total[shortest], shortest + 2, int(gain[shortest])
            best[end + 1] = before
    spans, gained, end = [], [], frames - 1
    while end >= 0:
        spans.append((end - length[end] + 1, end))
        gained.append(saved[end])
        end -= length[end]
    return Segmentation(spans[::-1], gained[::-1])


def _runs(links: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(F, N) bool links and (N,) the run in front of them -> (F, N) int32, the run of links that ends with each."""
    number = np.arange(1, len(links) + 1, dtype=np.int32)[:, None]
    gap = np.maximum.accumulate(np.where(links, 0, number), 0)  # the latest link that does not hold; 0: none
    return np.where(gap > 0, number - gap, number + run)


def _static(runs: np.ndarray) -> np.ndarray:
    """(F, N) runs of links -> (F, longest + 1) int64: how many positions have a run of at least 0, 1, ... links."""
    width = int(runs.max(initial=0)) + 1
    each = (runs + width * np.arange(len(runs))[:, None]).ravel()
    histogram = np.bincount(each, minlength=width * len(runs)).reshape(len(runs), width)
    return histogram[:, ::-1].cumsum(1)[:, ::-1]


def static_positions(links: np.ndarray, spans: list[tuple[int, int]]) -> list[np.ndarray]:
    """For each segment, the positions whose links hold throughout: ascending int64 arrays.

    Empty for segments of one frame. ``links`` (T-1, N) bool.
    """
    return [
        links[first:last].all(0).nonzero()[0] if last > first else np.empty(0, dtype=np.int64) for first, last in spans
    ]
