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
class Part:
    """The static tokens of one segment: columns ``start..stop-1`` become outputs ``output..output+clusters-1``."""

    start: int
    stop: int
    clusters: int
    output: int

    @property
    def size(self) -> int:
        """Its columns."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Plan:
    """Where every static source goes and how many outputs each part of the video gets. All tensors on the CPU.

    A column is a static position of a segment, merged over the segment's frames.

    Args:
        column: (T, N) int64, the column of a source; -1: dynamic.
        first: (C,) int64, the first source of each column.
        length: (C,) float32, the sources of each column.
        parts: one for each segment with static positions.
        kept: (T,) int64, how many dynamic tokens each frame keeps.
        output: (T,) int64, the first output of each frame.
        outputs: M.
    """

    column: Tensor
    first: Tensor
    length: Tensor
    parts: list[Part]
    kept: Tensor
    output: Tensor
    outputs: int

    @property
    def sources(self) -> int:
        """How many sources are not dropped."""
        length = self.length.numpy()
        merged = sum(length[part.start : part.stop].sum() for part in self.parts if part.clusters)
        return int(merged) + int(self.kept.sum())

    def direct_outputs(self) -> tuple[Tensor, list[Part]]:
        """(C,) int64, the outputs of columns that have one each, -1: of the others; and the parts with fewer outputs
        than columns, but at least one."""
        outputs = np.full(len(self.first), -1, dtype=np.int64)
        for part in self.parts:
            if part.clusters == part.size:
                outputs[part.start : part.stop] = np.arange(part.output, part.output + part.size)
        return torch.from_numpy(outputs), [part for part in self.parts if 0 < part.clusters < part.size]


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

    parts, output, outputs = [], [], 0
    for (start, stop), lowest, size, clusters in zip(cut.spans, first_column, sizes, merged, strict=True):
        if size:
            parts.append(Part(int(lowest), int(lowest + size), clusters, outputs))
            outputs += clusters
        for frame in range(start, stop + 1):
            output.append(outputs)
            outputs += kept[frame]
    plan = Plan(
        column=torch.from_numpy(column),
        first=torch.from_numpy(first),
        length=torch.from_numpy(length.astype(np.float32)),
        parts=parts,
        kept=torch.tensor(kept, dtype=torch.int64),
        output=torch.tensor(output, dtype=torch.int64),
        outputs=outputs,
    )
    return cut, plan


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
