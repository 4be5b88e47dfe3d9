"""How many tokens of a video say something new: budgets by content."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from holitom.ops.ranking import top_indexes
from holitom.ops.renewal import begins_of, cut_positions, noise_floor, patch_distances
from holitom.ops.spread import sketch

WIDTH = 64  # channels that are compared
FRAMES = 64  # after so many frames every position is new again
NOISE = 0.1  # the most that measured noise adds to a threshold
STRETCHES = 8  # of equal length, each with a floor


def new_tokens(features: Tensor, change: float) -> np.ndarray:
    """Which tokens have moved further than ``change`` from the latest new one at their position.

    The distance is the squared difference over twice the video's spatial variance: about 1 for unrelated tokens, 0 for
    equal ones, whatever the tower's scale and mean. What a camera's noise adds is measured and allowed for. All tokens
    of the first frame are new, and of every 64th. Waits for the device once.

    Args:
        features: (T, N, D) floating point.
        change: the threshold.

    Returns:
        (T, N) bool.
    """
    short = sketch(features, WIDTH).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    short = short / short.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    windows = patch_distances(short, FRAMES)
    threshold = noise_floor(windows, NOISE) + change
    begins = begins_of(windows, lambda window: cut_positions(window, threshold, 1, len(window), 0))
    found: np.ndarray = (begins == torch.arange(len(begins), device=begins.device)[:, None]).cpu().numpy()
    return found


def new_first(scores: Tensor, new: np.ndarray) -> Tensor:
    """Scores (T, N) by which all new tokens (T, N) go before all others, and both in their order."""
    finite = scores.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return scores + torch.from_numpy(new).to(scores.device) * (1 + finite.amax() - finite.amin())


def floor_of_stretches(worth: Tensor, new: np.ndarray, count: int) -> Tensor:
    """The best tokens of each eighth of a video, half of a budget in equal parts; of a stretch no more than are new.

    Args:
        worth: (T, N) floating point.
        new: (T, N) bool, of :func:`new_tokens`.
        count: the budget.

    Returns:
        (T*N,) bool, at most ``count``; at least one of each stretch with something new, if ``count`` allows that.
    """
    frames, positions = worth.shape
    stretches = _stretches(frames, count)
    each = max(1, count // (2 * len(stretches)))
    kept = torch.zeros(frames * positions, dtype=torch.bool, device=worth.device)
    for start, stop in stretches:
        best = top_indexes(worth[start:stop].flatten(), min(each, int(new[start:stop].sum())))
        kept.index_fill_(0, best + start * positions, True)
    return kept


def scarcity(new: np.ndarray) -> np.ndarray:
    """(T, 1) float32 from (T, N) bool: in eighths of a video with fewer new tokens than the average of those that have
    any, the root of that average over their own number; 1 elsewhere. (The whole quotient loses accuracy.)"""
    factor = np.ones((len(new), 1), dtype=np.float32)
    stretches = _stretches(len(new), len(new))
    counts = [int(new[start:stop].sum()) for start, stop in stretches]
    mean = sum(counts) / max(1, sum(count > 0 for count in counts))
    for (start, stop), count in zip(stretches, counts, strict=True):
        factor[start:stop] = max(1.0, mean / count) ** 0.5 if count else 1.0
    return factor


def _stretches(frames: int, most: int) -> list[tuple[int, int]]:
    """The frames from which and up to which each of at most ``STRETCHES`` equal stretches goes."""
    count = min(frames, STRETCHES, most)
    return list(pairwise(frames * number // count for number in range(count + 1)))
