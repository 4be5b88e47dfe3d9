"""What changed in a video, patch by patch: how far each has moved from where it was, and where it begins anew.

Everything stays on the device of the states. It is waited for once, in :func:`merge_rows`, for the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom import kernels
from holitom.edges import in_order
from holitom.merge import Merge
from holitom.ops.segmentation import segment_links, static_positions

LARGEST_CHANGE = 0.5  # of the distance 1 that two unrelated patches have: no budget carries on beyond it
_BISECTIONS = 14
_LARGEST = 16384  # positions of a frame that a kernel holds


def patch_distances(hidden: Tensor, max_frames: int) -> list[Tensor]:
    """How far the states of each patch lie apart over time, in windows of ``max_frames`` frames.

    The squared difference, over twice the mean squared distance of a patch to the mean of its frame: about 1 for
    unrelated patches, and 0 exactly for equal ones. One product of matrices for each window.

    Args:
        hidden: (T, P, D) states.
        max_frames: W, the frames of a window; the last may have fewer.

    Returns:
        For each window (P, W, W) float32. No synchronisation.
    """
    tiny = torch.finfo(torch.float32).tiny
    spread = (hidden - hidden.mean(1, keepdim=True)).float().square().sum(-1).mean()
    scale = 2 * spread.clamp(min=tiny)
    changes = (hidden[1:] != hidden[:-1]).any(-1)
    change = F.pad(changes.cumsum(0), (0, 0, 1, 0)).T  # (P, T): equal where nothing came between
    found = []
    for start in range(0, len(hidden), max_frames):
        states = hidden[start : start + max_frames].transpose(0, 1).float()
        states = states - states.mean(1, keepdim=True)  # small where little changes: so are the products' errors
        products = torch.bmm(states, states.transpose(1, 2))
        norms = products.diagonal(dim1=1, dim2=2)
        apart = (norms[:, :, None] + norms[:, None] - 2 * products) / scale
        same = change[:, start : start + max_frames]
        found.append(apart.clamp_(min=tiny).masked_fill_(same[:, :, None] == same[:, None], 0))
    return found


def noise_floor(windows: list[Tensor], most: float = math.inf) -> Tensor:
    """What a camera's noise alone adds to a distance: noise does not grow with time, and movement does.

    1.5 times how far the median change over one frame lies above a straight line through those over one and two.

    Args:
        windows: as :func:`patch_distances` gives them.
        most: the largest result.

    Returns:
        () float32, at least 0. No synchronisation.
    """
    one, two = ([window.diagonal(step, 1, 2).flatten() for window in windows] for step in (1, 2))
    if not sum(map(len, two)):
        return windows[0].new_zeros(())
    return ((2 * _median(one) - _median(two)) * 1.5).clamp_(0, most)


def _median(parts: list[Tensor]) -> Tensor:
    """Of all values; the mean of the two in the middle, of an even number."""
    values = parts[0] if len(parts) == 1 else torch.cat(parts)
    ascending, last = values.sort().values, len(values) - 1
    return ascending[last // 2 : len(values) // 2 + 1].mean()


def begins_of(windows: list[Tensor], cut: Callable[[Tensor], Tensor]) -> Tensor:
    """(T, P) int64, the frame in which the row of each patch begins: windows (P, W, W), each cut for itself."""
    parts, first = [], 0
    for window in windows:
        parts.append(cut(window) + first if first else cut(window))
        first += window.shape[1]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.library.custom_op("holitom::cut_positions", mutates_args=())
def cut_positions(distances: Tensor, threshold: Tensor, rows: int, columns: int, rings: int) -> Tensor:
    """Each patch for itself: its row lasts until it has moved further than ``threshold`` from where the row began.

    Args:
        distances: (P, W, W) float32 between the states of a patch in W frames; P = rows * columns, row by row.
        threshold: () float32, the largest distance at which a patch keeps its row.
        rows: of patches of a frame.
        columns: of patches of a frame.
        rings: so many rings of neighbours begin anew with a patch.

    Returns:
        (W, P) int64: the frame in which the row of each patch begins. No synchronisation where a kernel does it.
    """
    module = kernels.find(distances.device)
    if module is not None and rows * columns <= _LARGEST:
        found: Tensor = module.cut_positions(distances, threshold, rows, columns, rings)
        return found
    apart, limit = distances.cpu().numpy(), threshold.cpu().numpy()
    positions, frames = apart.shape[:2]
    place, begin = np.arange(positions), np.zeros(positions, dtype=np.int64)
    begins = np.zeros((frames, positions), dtype=np.int64)
    for now in range(1, frames):
        begin[dilate(apart[place, begin, now] > limit, (rows, columns), rings)] = now
        begins[now] = begin
    return torch.from_numpy(begins).to(distances.device)


@cut_positions.register_fake
def _(distances: Tensor, threshold: Tensor, rows: int, columns: int, rings: int) -> Tensor:
    return distances.new_empty(distances.shape[1], distances.shape[0], dtype=torch.int64)


def cut_segments(distances: Tensor, threshold: Tensor, rows: int, columns: int, rings: int) -> Tensor:
    """HoliTom's segments: a patch that is static throughout one has one row there; all others have one a frame.

    A chain of small changes may lead far away, so a static patch must also stay within ``threshold`` of the mean over
    its segment. Arguments and result as for :func:`cut_positions`; on the host, for which a device is waited for.
    """
    apart, limit = distances.cpu().numpy(), threshold.cpu().numpy()
    positions, frames = apart.shape[:2]
    links = (apart.diagonal(1, 1, 2) <= limit).T
    begins = np.repeat(np.arange(frames)[:, None], positions, 1)
    spans = segment_links(links).spans
    for (first, last), static in zip(spans, static_positions(links, spans), strict=True):
        if not len(static):
            continue
        inside = apart[static, first : last + 1, first : last + 1]
        to_mean = inside.mean(2) - inside.mean((1, 2))[:, None] / 2
        moves = np.ones(positions, dtype=bool)
        moves[static] = to_mean.max(1) > limit
        begins[first : last + 1, ~dilate(moves, (rows, columns), rings)] = first
    return torch.from_numpy(begins).to(distances.device)


def dilate(new: np.ndarray, grid: tuple[int, int], rings: int) -> np.ndarray:
    """(P,) bool -> (P,) bool: also the 8 neighbours of each patch, ``rings`` times; P = h * w, row by row."""
    found = new.reshape(grid)
    for _ in range(rings):
        wide = np.pad(found, 1)
        found = wide[:-2] | wide[1:-1] | wide[2:]
        found = found[:, :-2] | found[:, 1:-1] | found[:, 2:]
    return found.ravel()


def rows_of(begins: Tensor) -> int:
    """The number of rows in (T, P) begins. A GPU is waited for."""
    return int((begins == torch.arange(len(begins), device=begins.device)[:, None]).sum())


def within_budget(cut: Callable[[Tensor], Tensor], rows: float) -> Tensor:
    """The begins (T, P) at the smallest threshold, up to ``LARGEST_CHANGE``, that leaves at most ``rows`` rows.

    Thresholds are on the CPU, and so should be what is cut.
    """
    low, high = LARGEST_CHANGE / 2**_BISECTIONS, LARGEST_CHANGE
    best = cut(torch.tensor(high, dtype=torch.float32, device="cpu"))
    if rows_of(best) > rows:
        return best
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        found = cut(torch.tensor(middle, dtype=torch.float32, device="cpu"))
        if rows_of(found) > rows:
            low = middle
        else:
            high, best = middle, found
    return best


def merge_rows(begins: Tensor, most: float = 1.0) -> Merge:
    """The map of T*P patches to rows: each the mean of its sources, at the place of the middle one.

    Args:
        begins: (T, P) int64: the frame in which the row of each patch begins; a row's frames follow each other.
        most: with more rows than this share of the patches, nothing merges.

    Returns:
        Rows in the order of their anchors. A GPU is waited for once, for their number.
    """
    positions, device = begins.shape[1], begins.device
    state = torch.arange(begins.numel(), device=device)
    row = (begins * positions + state[:positions]).flatten()  # a row is known by its first source
    count = int((row == state).sum())
    if count > most * begins.numel():
        return Merge.identity(begins.numel(), device)
    length = torch.zeros_like(row).scatter_add_(0, row, torch.ones_like(row))[row]
    target, anchor = in_order(row.add_((length - 1) // 2, alpha=positions), count)
    return Merge(target, length.float().reciprocal(), anchor)._knowing(begins.numel())
