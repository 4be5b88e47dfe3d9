"""Density peaks of many groups of points at once.

An accelerator takes longer to start an operation than to run a small one: there, all groups are padded to one size and
clustered together, in about fifty operations. On a CPU they are clustered one after the other, without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from holitom.ops.density import DensityPeaks
from holitom.ops.ranking import rank_descending

_PADDED_BYTES = 1 << 28  # of padded points at a time


@dataclass(frozen=True)
class Group:
    """``size`` points to be clustered around ``centres`` density peaks, found with ``neighbours`` neighbours."""

    size: int
    centres: int
    neighbours: int


def cluster_groups(x: Tensor, groups: Sequence[Group], penalty: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Clusters each group by itself, as :meth:`DensityPeaks.of`.

    Args:
        x: (K, D) floating point, the points of all groups, one group after the other.
        groups: the sizes and the clusters of the groups.
        penalty: (K,) float32, what each point loses of its score as a centre; None: nothing.

    Returns:
        (K,) int64, the number of each point's cluster in its group, by the place of the centres; (K,) bool, which
        points are centres. No synchronisation.
    """
    if x.device.type == "cpu":
        return _one_by_one(x, groups, penalty)
    return cluster_padded(x, groups, penalty)


def _one_by_one(x: Tensor, groups: Sequence[Group], penalty: Tensor | None) -> tuple[Tensor, Tensor]:
    cluster = torch.empty(len(x), dtype=torch.int64)
    is_centre = torch.zeros(len(x), dtype=torch.bool)
    start = 0
    for group in groups:
        part = slice(start, start + group.size)
        lost = None if penalty is None else penalty[part]
        peaks = DensityPeaks.of(x[part], group.centres, group.neighbours, penalty=lost)
        cluster[part] = peaks.cluster
        is_centre[peaks.centres + start] = True
        start += group.size
    return cluster, is_centre


def cluster_padded(x: Tensor, groups: Sequence[Group], penalty: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """:func:`cluster_groups` with all groups padded to the largest one, a part of them at a time."""
    found, start = [], 0
    for some in _parts(groups, 4 * x.shape[1]):
        stop = start + sum(group.size for group in some)
        found.append(_padded(x[start:stop], some, None if penalty is None else penalty[start:stop]))
        start = stop
    if len(found) == 1:
        return found[0]
    return torch.cat([cluster for cluster, _ in found]), torch.cat([is_centre for _, is_centre in found])


def _parts(groups: Sequence[Group], row_bytes: int) -> Iterator[Sequence[Group]]:
    """Neighbouring groups, as many as stay below the limit when padded."""
    first, largest = 0, 0
    for number, group in enumerate(groups):
        largest = max(largest, group.size)
        if number > first and (number + 1 - first) * largest * row_bytes > _PADDED_BYTES:
            yield groups[first:number]
            first, largest = number, group.size
    yield groups[first:]


def _padded(x: Tensor, groups: Sequence[Group], penalty: Tensor | None) -> tuple[Tensor, Tensor]:
    """As :func:`cluster_groups`; G groups of at most n points."""
    table = torch.tensor([(group.size, group.centres, group.neighbours) for group in groups])
    width = int(table[:, 0].max())
    first = table[:, 0].cumsum(0) - table[:, 0]
    places = torch.arange(width)
    real = places < table[:, :1]
    on_host = (table, (first[:, None] + places).clamp(max=len(x) - 1), real.flatten().nonzero()[:, 0])
    table, rows, flat = (tensor.to(x.device, non_blocking=True) for tensor in on_host)
    sizes, centres, neighbours = (table[:, column, None] for column in range(3))  # (G, 1) each
    places = torch.arange(width, device=x.device)
    missing = places >= sizes  # (G, n)
    apart = missing[:, :, None] | missing[:, None, :]

    points = x[rows].float().masked_fill_(missing[..., None], 0)
    points = (points - points.sum(1, keepdim=True) / sizes[..., None]).masked_fill_(missing[..., None], 0)
    gram = points @ points.transpose(1, 2)
    square = gram.diagonal(dim1=1, dim2=2)
    distance = square[:, :, None] + square[:, None, :] - (gram + gram.transpose(1, 2))
    distance = distance.clamp_(min=0).sqrt_() / x.shape[1] ** 0.5
    distance.diagonal(dim1=1, dim2=2).zero_()

    counted = min(width, max(group.neighbours for group in groups))
    near = distance.masked_fill(apart, torch.inf).topk(counted, dim=-1, largest=False).values.square()
    used = torch.minimum(neighbours, sizes)
    near = near.masked_fill_(places[:counted] >= used[..., None], 0)
    density = (near.sum(-1) / -used).exp().masked_fill_(missing, -1)
    rank = rank_descending(density)
    denser = (rank[:, None, :] < rank[:, :, None]) & ~apart
    gap = distance.masked_fill(~denser, torch.inf).amin(-1)
    widest = distance.masked_fill(apart, 0).amax((1, 2))
    score = density * torch.where(rank == 0, widest[:, None], gap)
    score = (score if penalty is None else score - penalty[rows]).masked_fill_(missing, -torch.inf)

    is_centre = rank_descending(score) < centres
    number = is_centre.cumsum(1) - 1
    nearest = distance.masked_fill_(~is_centre[:, None, :], torch.inf).argmin(-1)
    nearest = torch.where(is_centre, places, nearest)
    return number.gather(1, nearest).flatten()[flat], is_centre.flatten()[flat]
