"""Farthest points: pick, one after the other, the point whose nearest picked one is the farthest."""

from __future__ import annotations

import torch
from torch import Tensor

from holitom import kernels

FAR = 1e9  # the distance of a point without any pick
LARGEST = 8192  # points of a set that a kernel holds; their distances take 256 MiB then


def can_pick(device: torch.device, points: int) -> bool:
    """Whether :func:`pick_farthest` is one operation on a device, rather than some for each pick."""
    return points <= LARGEST and kernels.promised(device)


@torch.library.custom_op("holitom::pick_farthest", mutates_args=())
def pick_farthest(
    distance: Tensor, start: Tensor, weight: Tensor | None, count: int, positions: int = 1, step: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Picks in B sets of n points by themselves. Of equals the first is picked, no point twice.

    Args:
        distance: (B, n, n) float32 without NaN; [b, i, j] is the distance of j from the picked i.
        start: (B, n) float32, the distance of each point before any pick: it decides the first one.
        weight: (B, n) float32, at least 0: distances times it are compared; None: 1.
        count: m, from 1 to n.
        positions: so many points of a set are a frame.
        step: what one frame between two points adds to their distance.

    Returns:
        (B, m) int64 in order of picking; (B, n) int64, the number of each point's nearest pick, of equals the first,
        a pick's own; (B, n) float32, how far that is, 0 for a pick. No synchronisation.
    """
    module = kernels.find(distance.device)
    if module is not None and distance.shape[1] <= LARGEST:
        found: tuple[Tensor, Tensor, Tensor] = module.pick_farthest(distance, start, weight, count, positions, step)
        return found
    device, (sets, points, _) = distance.device, distance.shape
    rows = torch.arange(sets, device=device)
    frame = torch.arange(points, device=device) // positions
    nearest, owner = start.clone(), torch.zeros(sets, points, dtype=torch.int64, device=device)
    index = torch.empty(sets, count, dtype=torch.int64, device=device)
    picked = torch.zeros(sets, points, dtype=torch.bool, device=device)
    for number in range(count):
        score = nearest if weight is None else nearest * weight
        pick = score.masked_fill(picked, -torch.inf).argmax(1)
        fresh = distance[rows, pick]
        if step:
            fresh = fresh + step * (frame - frame[pick][:, None]).abs()
        nearer = ((fresh < nearest) & ~picked).scatter_(1, pick[:, None], True)
        nearest, owner = torch.where(nearer, fresh, nearest), owner.masked_fill_(nearer, number)
        picked.scatter_(1, pick[:, None], True)
        index[:, number] = pick
    return index, owner, nearest.masked_fill_(picked, 0.0)


@pick_farthest.register_fake
def _(
    distance: Tensor, start: Tensor, weight: Tensor | None, count: int, positions: int = 1, step: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.empty(len(start), count, dtype=torch.int64, device=start.device)
    return index, torch.empty_like(start, dtype=torch.int64), torch.empty_like(start)
