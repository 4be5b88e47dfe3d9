"""What changed in a video, patch by patch: how far each has moved from where it was, and where it begins anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.segmentation import segment_links, static_positions

LARGEST_CHANGE = 0.5  # of the distance 1 that two unrelated patches have: no budget carries on beyond it
_BISECTIONS = 14

Cut = Callable[[np.ndarray, float], np.ndarray]
"""Distances (P, T, T) and a threshold -> (T, P) int64, the frame in which each patch's row begins."""


def patch_distances(hidden: Tensor, max_frames: int) -> list[np.ndarray]:
    """How far the states of each patch lie apart over time, in windows of ``max_frames`` frames.

    The squared difference, over twice the mean squared distance of a patch to the mean of its frame: about 1 for
    unrelated patches, and 0 exactly for equal ones. One product of matrices; a GPU is waited for once.

    Args:
        hidden: (T, P, D) states.
        max_frames: W, the frames of a window; the last may have fewer.

    Returns:
        For each window (P, W, W) float32.
    """
    spread = (hidden - hidden.mean(1, keepdim=True)).float().square().sum(-1).mean()
    scale = 2 * spread.clamp(min=torch.finfo(torch.float32).tiny)
    equal = (hidden[1:] == hidden[:-1]).all(-1)
    change = torch.nn.functional.pad((~equal).cumsum(0), (0, 0, 1, 0)).T  # (P, T): equal where nothing came between
    found = []
    for start in range(0, len(hidden), max_frames):
        states = hidden[start : start + max_frames].transpose(0, 1).float()
        states = states - states.mean(1, keepdim=True)  # small where little changes: so are the products' errors
        products = torch.bmm(states, states.transpose(1, 2))
        norms = products.diagonal(dim1=1, dim2=2)
        apart = (norms[:, :, None] + norms[:, None] - 2 * products) / scale
        same = change[:, start : start + max_frames]
        tiny = torch.finfo(torch.float32).tiny
        found.append(apart.clamp(min=tiny).masked_fill(same[:, :, None] == same[:, None], 0))
    host = torch.cat([each.flatten() for each in found]).cpu().numpy()
    ends = np.cumsum([each.numel() for each in found])[:-1]
    return [part.reshape(each.shape) for part, each in zip(np.split(host, ends), found, strict=True)]


def noise_floor(windows: list[np.ndarray]) -> float:
    """What a camera's noise alone adds to a distance: noise does not grow with time, and movement does.

    1.5 times how far the median change over one frame lies above a straight line through those over one and two.

    Args:
        windows: as :func:`patch_distances` gives them.
    """
    one = [window.diagonal(1, 1, 2).ravel() for window in windows]
    two = [window.diagonal(2, 1, 2).ravel() for window in windows]
    if not sum(map(len, two)):
        return 0.0
    return 1.5 * max(0.0, 2 * float(np.median(np.concatenate(one))) - float(np.median(np.concatenate(two))))


def cut_positions(distances: np.ndarray, threshold: float, around: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Each patch for itself: its row lasts until it has moved further than ``threshold`` from where the row began.

    Args:
        distances: (P, W, W) between the states of a patch in W frames.
        threshold: the largest distance at which a patch keeps its row.
        around: a patch that begins anew takes with it those that this adds: (P,) bool -> (P,).

    Returns:
        (W, P) int64: the frame in which the row of each patch begins.
    """
    positions, frames = distances.shape[:2]
    place, begin = np.arange(positions), np.zeros(positions, dtype=np.int64)
    begins = np.zeros((frames, positions), dtype=np.int64)
    for now in range(1, frames):
        begin[around(distances[place, begin, now] > threshold)] = now
        begins[now] = begin
    return begins


def cut_segments(distances: np.ndarray, threshold: float, around: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """HoliTom's segments: a patch that is static throughout one has one row there; all others have one a frame.

    A chain of small changes may lead far away, so a static patch must also stay within ``threshold`` of the mean over
    its segment. Arguments and result as for :func:`cut_positions`.
    """
    positions, frames = distances.shape[:2]
    links = (distances.diagonal(1, 1, 2) <= threshold).T
    begins = np.repeat(np.arange(frames)[:, None], positions, 1)
    spans = segment_links(links).spans
    for (first, last), static in zip(spans, static_positions(links, spans), strict=True):
        if not len(static):
            continue
        inside = distances[static, first : last + 1, first : last + 1]
        to_mean = inside.mean(2) - inside.mean((1, 2))[:, None] / 2
        moves = np.ones(positions, dtype=bool)
        moves[static] = to_mean.max(1) > threshold
        begins[first : last + 1, ~around(moves)] = first
    return begins


def dilate(new: np.ndarray, grid: tuple[int, int], rings: int) -> np.ndarray:
    """(P,) bool -> (P,) bool: also the 8 neighbours of each patch, ``rings`` times; P = h * w, row by row."""
    found = new.reshape(grid)
    for _ in range(rings):
        wide = np.pad(found, 1)
        found = wide[:-2] | wide[1:-1] | wide[2:]
        found = found[:, :-2] | found[:, 1:-1] | found[:, 2:]
    return found.ravel()


def rows_of(begins: np.ndarray) -> int:
    """The number of rows in (T, P) begins."""
    return int((begins == np.arange(len(begins))[:, None]).sum())


def within_budget(cut: Callable[[float], np.ndarray], rows: float) -> np.ndarray:
    """The begins (T, P) at the smallest threshold, up to ``LARGEST_CHANGE``, that leaves at most ``rows`` rows."""
    low, high = LARGEST_CHANGE / 2**_BISECTIONS, LARGEST_CHANGE
    best = cut(high)
    if rows_of(best) > rows:
        return best
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        found = cut(middle)
        if rows_of(found) > rows:
            low = middle
        else:
            high, best = middle, found
    return best


def merge_rows(begins: np.ndarray) -> Merge:
    """The map of T*P patches to rows: each the mean of its sources, at the place of the middle one.

    Args:
        begins: (T, P) int64: the frame in which the row of each patch begins; a row's frames follow each other.

    Returns:
        On the CPU, rows in the order of their anchors.
    """
    positions = begins.shape[1]
    row = (begins * positions + np.arange(positions)).ravel()  # a row is known by its first source
    length = np.bincount(row, minlength=row.size)
    first = length.nonzero()[0]
    anchor = first + (length[first] - 1) // 2 * positions
    order = anchor.argsort()
    rank = np.empty(row.size, dtype=np.int64)
    rank[first[order]] = np.arange(len(first))
    weight = (1 / length[row]).astype(np.float32)
    return Merge(torch.from_numpy(rank[row]), torch.from_numpy(weight), torch.from_numpy(anchor[order]))
