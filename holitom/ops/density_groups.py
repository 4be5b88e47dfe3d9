"""Density peaks of many groups of points at once.

An accelerator takes longer to start an operation than to run a small one: there, all groups are padded to one size and
clustered together. On a CPU they are clustered one after the other, without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from holitom import kernels
from holitom.edges import send
from holitom.ops.density import DensityPeaks
from holitom.ops.ranking import rank_descending

_PADDED_BYTES = 1 << 28  # of padded points at a time
_LARGEST = 4096  # points of a group that a kernel takes


@dataclass(frozen=True)
class Group:
    """``size`` points to be clustered around ``centres`` density peaks, found with ``neighbours`` neighbours."""

    size: int
    centres: int
    neighbours: int


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of K points in groups, which have C clusters together.

    Args:
        number: (K,) int64, each point's cluster, 0..C-1: those of the first group come first.
        share: (K,) float32, each point's share in its cluster.
        centre: (C,) int64, the point that is the centre of each cluster.
    """

    number: Tensor
    share: Tensor
    centre: Tensor


def cluster_groups(
    x: Tensor,
    groups: Sequence[Group],
    penalty: Tensor | None = None,
    *,
    points: Tensor | None = None,
    ascending: bool = True,
    centre_weight: float | None = None,
) -> Clusters:
    """Clusters each group by itself, as :meth:`DensityPeaks.of`. Of as many clusters as points each has one, in order.

    Args:
        x: (K, D) floating point, the points of all groups, one group after the other.
        groups: the sizes and the clusters of the groups; at least one.
        penalty: (K,) float32, what each point loses of its score as a centre; None: nothing.
        points: (K,) int64, the row of ``x`` of each point; None: in order.
        ascending: the clusters of a group in order of their centres' index, else in order of descending score.
        centre_weight: a cluster is centre_weight * centre + (1 - centre_weight) * mean of the others; None: the mean.
            A point that is alone has a share of 1.

    Returns:
        the clusters. No synchronisation.
    """
    if x.device.type == "cpu":
        return _one_by_one(x, groups, penalty, points, ascending, centre_weight)
    return cluster_padded(x, groups, penalty, points=points, ascending=ascending, centre_weight=centre_weight)


def _one_by_one(
    x: Tensor,
    groups: Sequence[Group],
    penalty: Tensor | None,
    points: Tensor | None,
    ascending: bool,
    centre_weight: float | None,
) -> Clusters:
    total = sum(group.size for group in groups)
    number = torch.empty(total, dtype=torch.int64, device="cpu")
    share = torch.empty(total, dtype=torch.float32, device="cpu")
    centres, start, base = [], 0, 0
    for group in groups:
        part = slice(start, start + group.size)
        lost = None if penalty is None else penalty[part]
        if group.centres == group.size:
            number[part], share[part] = torch.arange(base, base + group.size, device="cpu"), 1.0
            centres.append(torch.arange(start, start + group.size, device="cpu"))
        else:
            rows = x[part] if points is None else x[points[part]]
            peaks = DensityPeaks.of(rows, group.centres, group.neighbours, ascending=ascending, penalty=lost)
            size = torch.bincount(peaks.cluster, minlength=group.centres)
            number[part], share[part] = peaks.cluster + base, shares(size, centre_weight)[peaks.cluster]
            centres.append(peaks.centres + start)
            if centre_weight is not None:
                share[centres[-1]] = torch.ones(group.centres, dtype=torch.float32, device="cpu").masked_fill_(
                    size > 1, centre_weight
                )
        start, base = start + group.size, base + group.centres
    return Clusters(number, share, torch.cat(centres))


def shares(size: Tensor, centre_weight: float | None) -> Tensor:
    """The share of a member that is not the centre, in clusters of so many points, float32."""
    if centre_weight is None:
        return 1 / size.float()
    return (1 - centre_weight) / (size - 1).clamp(min=1).float()


def cluster_padded(
    x: Tensor,
    groups: Sequence[Group],
    penalty: Tensor | None = None,
    *,
    points: Tensor | None = None,
    ascending: bool = True,
    centre_weight: float | None = None,
) -> Clusters:
    """:func:`cluster_groups` with all groups padded to the largest one, a part of them at a time."""
    found, start, base = [], 0, 0
    for some in _parts(groups, 4 * x.shape[1]):
        stop = start + sum(group.size for group in some)
        lost = None if penalty is None else penalty[start:stop]
        rows, which = (x[start:stop], None) if points is None else (x, points[start:stop])
        part = _padded(rows, some, lost, which, ascending, centre_weight)
        found.append(
            (part.number + base, part.share, part.centre + start) if start else (part.number, part.share, part.centre)
        )
        start, base = stop, base + len(part.centre)
    return Clusters(*(parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*found, strict=True)))


def _parts(groups: Sequence[Group], row_bytes: int) -> Iterator[Sequence[Group]]:
    """Neighbouring groups, as many as stay below the limit when padded."""
    first, largest = 0, 0
    for number, group in enumerate(groups):
        largest = max(largest, group.size)
        if number > first and (number + 1 - first) * largest * row_bytes > _PADDED_BYTES:
            yield groups[first:number]
            first, largest = number, group.size
    yield groups[first:]


def _padded(
    x: Tensor,
    groups: Sequence[Group],
    penalty: Tensor | None,
    points: Tensor | None,
    ascending: bool,
    centre_weight: float | None,
) -> Clusters:
    """As :func:`cluster_groups`; G groups of at most n points."""
    numbers = np.array([(group.size, group.centres, group.neighbours) for group in groups])
    size, centres = numbers[:, 0], numbers[:, 1]
    places, first = np.arange(size.max()), size.cumsum() - size
    there = places < size[:, None]
    on_host = (
        numbers,
        np.where(there, places, 0) + first[:, None],  # an absent point is the group's first one again
        np.flatnonzero(there),
        np.flatnonzero(places < centres[:, None]),
        (centres.cumsum() - centres).repeat(size),
        first.repeat(centres),
    )
    table, rows, flat, leads, base, start = send([torch.from_numpy(each) for each in on_host], x.device)

    padded = x[rows if points is None else points[rows]].float()
    padded = padded - padded[:, :1]  # differences stay, and with smaller numbers less of them is lost to rounding
    gram = padded @ padded.transpose(1, 2)
    lost = None if penalty is None else penalty[rows]
    largest = max(min(group.neighbours, group.size) for group in groups)
    number, share, centre = density_peaks(gram, table, lost, x.shape[1], largest, ascending, centre_weight)
    return Clusters(number.flatten()[flat] + base, share.flatten()[flat], centre.flatten()[leads] + start)


@torch.library.custom_op("holitom::density_peaks", mutates_args=())
def density_peaks(
    gram: Tensor,
    table: Tensor,
    penalty: Tensor | None,
    width: int,
    largest: int,
    ascending: bool,
    centre_weight: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Density peaks of G groups of at most n points, from the products of their points.

    Args:
        gram: (G, n, n) float32.
        table: (G, 3) int64, the points, centres and neighbours of each group.
        penalty: (G, n) float32, taken from the scores, or None.
        width: channels of the points.
        largest: the most neighbours of any group.
        ascending: see :func:`cluster_groups`.
        centre_weight: see :func:`cluster_groups`.

    Returns:
        (G, n) int64, the number of each point's cluster in its group; (G, n) float32, its share in it; (G, n) int64,
        the centre of each cluster. What is beyond a group's size, or its clusters, has no meaning.
    """
    module = kernels.find(gram.device)
    if module is not None and gram.shape[1] <= _LARGEST:
        found: tuple[Tensor, Tensor, Tensor] = module.density_peaks(
            gram, table, penalty, width, ascending, centre_weight
        )
        return found
    sizes, centres, neighbours = table.unsqueeze(-1).unbind(1)  # (G, 1) each
    places = torch.arange(gram.shape[1], device=gram.device)
    missing = places >= sizes
    apart = missing[:, :, None] | missing[:, None, :]
    square = gram.diagonal(dim1=1, dim2=2)
    distance = square[:, :, None] + square[:, None, :] - (gram + gram.transpose(1, 2))
    distance = distance.clamp_(min=0).sqrt_() / width**0.5
    distance.diagonal(dim1=1, dim2=2).zero_()

    near = distance.masked_fill(apart, torch.inf).topk(largest, dim=-1, largest=False).values.square()
    used = torch.minimum(neighbours, sizes)
    near = near.masked_fill_(places[:largest] >= used[..., None], 0)
    density = (near.sum(-1) / -used).exp().masked_fill_(missing, -1)
    rank = rank_descending(density)
    denser = (rank[:, None, :] < rank[:, :, None]) & ~apart
    gap = distance.masked_fill(~denser, torch.inf).amin(-1)
    widest = distance.masked_fill(apart, 0).amax((1, 2))
    score = density * torch.where(rank == 0, widest[:, None], gap)
    score = (score if penalty is None else score - penalty).nan_to_num_(nan=torch.finfo(torch.float32).min)
    place = rank_descending(score.masked_fill_(missing, -torch.inf))

    leading = place < centres
    if ascending:
        place = leading.cumsum(1) - 1
    else:
        place = torch.where(centres == sizes, places, place)
    order = place.masked_fill(~leading, gram.shape[1]).argsort(dim=1, stable=True)  # centres by their number
    distance = distance.gather(2, order[:, None, :].expand_as(distance))
    number = distance.masked_fill_((places >= centres)[:, None], torch.inf).argmin(-1)
    number = torch.where(leading, place, number)
    size = torch.zeros_like(number).scatter_add_(1, number, (~missing).long()).gather(1, number)
    share = shares(size, centre_weight)
    if centre_weight is not None:
        share = torch.where(leading, torch.where(size > 1, centre_weight, 1.0).float(), share)
    return number, share, order


@density_peaks.register_fake
def _(
    gram: Tensor,
    table: Tensor,
    penalty: Tensor | None,
    width: int,
    largest: int,
    ascending: bool,
    centre_weight: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    number = gram.new_empty(gram.shape[:2], dtype=torch.int64)
    return number, gram.new_empty(gram.shape[:2]), number.clone()
