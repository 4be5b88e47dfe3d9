"""Temporal segmentation: the cut of a video that makes as many tokens redundant as possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
    length = np.ones(frames, dtype=np.int64)  # of the last segment in the best cut that ends at frame e
    saved = np.zeros(frames, dtype=np.int64)  # by that segment
    run = np.zeros(positions, dtype=np.int64)  # links that end at frame e without a gap, for each position
    steps = np.arange(frames, dtype=np.int64)
    for end in range(1, frames):
        run += 1
        run *= links[end - 1]
        best[end + 1] = best[end]
        histogram = np.bincount(run)
        longest = min(len(histogram), limit) - 1  # in links; a longer segment has no static position
        if longest < 1:
            continue
        static = histogram[::-1].cumsum()[::-1]  # static[w-1]: positions that are static in the last w frames
        gain = steps[1 : longest + 1] * static[1 : longest + 1]
        total = best[end - longest : end][::-1] + gain  # by the number of links: 1, 2, ...
        shortest = int(total.argmax())
        if total[shortest] > best[end]:
            best[end + 1], length[end], saved[end] = total[shortest], shortest + 2, gain[shortest]
    spans, gains, end = [], [], frames - 1
    while end >= 0:
        spans.append((end - int(length[end]) + 1, end))
        gains.append(int(saved[end]))
        end -= int(length[end])
    return Segmentation(spans[::-1], gains[::-1])


def static_positions(links: np.ndarray, spans: list[tuple[int, int]]) -> list[np.ndarray]:
    """For each segment, the positions whose links hold throughout: ascending int64 arrays.

    Empty for segments of one frame. ``links`` (T-1, N) bool.
    """
    return [
        links[first:last].all(0).nonzero()[0] if last > first else np.empty(0, dtype=np.int64) for first, last in spans
    ]
