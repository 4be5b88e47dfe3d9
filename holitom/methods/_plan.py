"""What of HoliTom's outer stage can be counted on the host, from the static links alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from holitom.ops.segmentation import Segmentation, segment_links, static_positions
from holitom.tokens import largest_remainder


@dataclass(frozen=True, eq=False)
class Plan:
    """Where every static source goes and how many outputs each part of the video gets. All tensors int64, on the CPU.

    A column is a static position of a segment, merged over the segment's frames; columns of a segment are clustered.

    Args:
        groups: the columns and the clusters of each segment that has both.
        column: (T, N), the column 0..C-1 of a source; -1: dynamic; -2: static in a segment that keeps no such token.
        source: (E,), the sources of all columns, one column after the other.
        among: (E,), how many sources its column has.
        length: (C,), how many sources each column has.
        begin: (C + 1,), where each column begins in ``source``, and the end.
        first: (C,), the first source of each column.
        pick: (P,), where the dynamic tokens that stay are in each frame's ranking: t * N + place.
        frame: (P,), t * N of each.
        output: (M,), the outputs of the dynamic tokens by their position, then those of the K clusters.
    """

    groups: list[tuple[int, int]]
    column: Tensor
    source: Tensor
    among: Tensor
    length: Tensor
    begin: Tensor
    first: Tensor
    pick: Tensor
    frame: Tensor
    output: Tensor


def plan_outer(
    links: np.ndarray,
    max_frames: int,
    retention: float,
    exact: int | None,
    scores: Tensor,
    static_links: np.ndarray | None = None,
    least: int = 0,
) -> tuple[Segmentation, Plan]:
    """Segments a video and shares its budget out.

    Args:
        links: (T-1, N) bool, the static links.
        max_frames: the longest segment.
        retention: share of the tokens to keep, where ``exact`` is None.
        exact: the number of outputs to meet, or None for the published rounding.
        scores: (T, N) float32; looked at only when ``exact`` exceeds what segments and dynamic tokens offer.
        static_links: (T-1, N) bool, those by which positions are static in a segment; None: ``links``.
        least: with ``exact``, what the static tokens of each segment and the dynamic ones of each frame get, where all
            can have it, before the rest is shared out.
    """
    frames, positions = scores.shape
    cut = segment_links(links, max_frames)
    column = np.full((frames, positions), -1, dtype=np.int64)
    static = static_positions(links if static_links is None else static_links, cut.spans)
    sizes = np.array([len(where) for where in static], dtype=np.int64)
    first_column = sizes.cumsum() - sizes
    for (start, stop), where, lowest in zip(cut.spans, static, first_column, strict=True):
        column[start : stop + 1, where] = np.arange(lowest, lowest + len(where))
    first = np.concatenate([start * positions + where for (start, _), where in zip(cut.spans, static, strict=True)])
    length = np.repeat([stop - start + 1 for start, stop in cut.spans], sizes)
    offered = frames * positions - cut.redundant
    free = 0 if exact is None else exact - len(first) - int((column < 0).sum())
    if free > 0:
        length -= _free_sources(column, first, free, scores)

    dynamic = (column < 0).sum(1)
    if exact is None:
        share = min(retention / (offered / (frames * positions)), 1.0)
        merged = [round(int(size) * share) for size in sizes]
        kept = [math.ceil(int(size) * share) for size in dynamic]
        if not sum(merged) + sum(kept):
            merged[int(sizes.argmax())] = 1  # at least one token of every video reaches the LLM
    else:
        offers = torch.from_numpy(np.concatenate([sizes, dynamic]))
        floor = offers.clamp(max=least)
        floor = floor if int(floor.sum()) <= exact else torch.zeros_like(floor)
        shares = (floor + largest_remainder(offers - floor, exact - int(floor.sum()))).tolist()
        merged, kept = shares[: len(sizes)], shares[len(sizes) :]

    live = np.repeat(np.array(merged, dtype=np.int64) > 0, sizes)  # columns of which something stays
    number = np.append(np.where(live, live.cumsum() - 1, -2), -1)  # -1: dynamic
    column, first, length = number[column], first[live], length[live]
    source = np.concatenate(
        [
            (np.arange(start, stop + 1) * positions + where[:, None]).ravel()
            for (start, stop), where, clusters in zip(cut.spans, static, merged, strict=True)
            if clusters
        ]
        or [np.empty(0, dtype=np.int64)]
    )
    if free > 0:
        source = source[column.reshape(-1)[source] >= 0]  # without those that are free
    groups, of_clusters, of_picks, outputs = [], [], [], 0
    for (start, stop), size, clusters in zip(cut.spans, sizes, merged, strict=True):
        if clusters:
            groups.append((int(size), int(clusters)))
            of_clusters.append(np.arange(outputs, outputs + clusters))
            outputs += clusters
        picks = sum(kept[start : stop + 1])
        of_picks.append(np.arange(outputs, outputs + picks))
        outputs += picks
    counts = np.array(kept, dtype=np.int64)
    frame = np.repeat(np.arange(frames) * positions, counts)
    pick = np.arange(len(frame)) - np.repeat(counts.cumsum() - counts, counts) + frame
    output = np.concatenate([*of_picks, *of_clusters])
    begin = np.concatenate([[0], length.cumsum()])
    arrays = (column, source, length.repeat(length), length, begin, first, pick, frame, output)
    return cut, Plan(groups, *(torch.from_numpy(array.astype(np.int64, copy=False)) for array in arrays))


def _free_sources(column: np.ndarray, first: np.ndarray, count: int, scores: Tensor) -> np.ndarray:
    """Takes the ``count`` static sources with the largest scores out of their columns, in place.

    The first source of a column stays, so that the column does too. Returns (C,) how many each column has lost.
    """
    flat = column.reshape(-1)
    movable = flat >= 0
    movable[first] = False
    candidates = movable.nonzero()[0]
    order = np.argsort(-scores.cpu().numpy().ravel()[candidates], kind="stable")
    freed = candidates[order[:count]]
    lost = np.bincount(flat[freed], minlength=len(first))
    flat[freed] = -1
    return lost
