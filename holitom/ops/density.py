"""Density-peak clustering (DPC-kNN): cluster centres are dense points far from any denser one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from holitom.ops.ranking import rank_descending
from holitom.ops.similarity import products, row_chunk

_HELD = 1 << 26  # distances that are kept


def pairwise_distances(x: Tensor) -> Tensor:
    """Euclidean distances between rows, divided by sqrt(D) as is usual for DPC, in float32.

    Args:
        x: (n, D) floating point.

    Returns:
        (n, n) float32, exactly symmetric, exactly zero on the diagonal.
    """
    x = x.detach().float()
    x = x - x.mean(0)  # the differences stay, and with smaller numbers less of them is lost to rounding
    gram = products(x)
    square = gram.diagonal()
    distance = (square[:, None] + square).sub_(gram, alpha=2).clamp_(min=0).sqrt_().div_(x.shape[1] ** 0.5)
    distance.fill_diagonal_(0)
    return distance


def nearest(distances: Tensor, count: int) -> Tensor:
    """The ``count`` smallest entries of each row of (n, n), in no order: (n, count)."""
    if distances.device.type == "cpu":
        return torch.from_numpy(np.partition(distances.numpy(), count - 1, axis=-1)[:, :count])
    return distances.topk(count, dim=-1, largest=False, sorted=False).values


def density_scores(distances: Tensor, neighbours: int) -> Tensor:
    """DPC-kNN score of each point: its density times its distance to the nearest denser point.

    density = exp(-mean of the squared distances to the ``neighbours`` nearest points, the point itself included).
    Of equally dense points the one with the lower index counts as denser (published codes add random noise instead).
    The densest point gets the largest of all distances.

    Args:
        distances: (n, n) float32 between the points.
        neighbours: k of the density; at most n are used.

    Returns:
        (n,) float32.
    """
    count = distances.shape[0]
    density = (-nearest(distances, min(neighbours, count)).square().mean(-1)).exp()
    order = density.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=order.device)
    denser = rank[None, :] < rank[:, None]
    gap = torch.where(denser, distances, torch.inf).amin(-1)
    return density * torch.where(rank == 0, distances.amax(), gap)


def join_nearest(distances: Tensor, centres: Tensor) -> Tensor:
    """(n,) int64: for each point the number (0..m-1) of its nearest centre; a centre belongs to itself.

    Args:
        distances: (n, n) float32 between the points.
        centres: (m,) int64. Of equally near centres the first in ``centres`` is taken.
    """
    joined = distances[:, centres].argmin(-1)
    joined[centres] = torch.arange(len(centres), device=centres.device)
    return joined


@dataclass(frozen=True, eq=False)
class DensityPeaks:
    """Clusters of n points: ``centres`` (m,) int64 and ``cluster`` (n,) int64, the number of each point's centre."""

    centres: Tensor
    cluster: Tensor

    @classmethod
    def of(
        cls, x: Tensor, centres: int, neighbours: int, *, ascending: bool = True, penalty: Tensor | None = None
    ) -> DensityPeaks:
        """Clusters rows (n, D) around ``centres`` density peaks.

        Args:
            x: (n, D) floating point.
            centres: m, from 1 to n.
            neighbours: k of the density estimate; at most n are used.
            ascending: centres in order of their index, else in order of descending score.
            penalty: (n,) float32, taken from the scores; None: nothing.
        """
        distances = pairwise_distances(x)
        scores = density_scores(distances, neighbours)
        scores = scores if penalty is None else scores - penalty
        order = scores.argsort(descending=True, stable=True)[:centres]
        order = order.sort().values if ascending else order
        return cls(order, join_nearest(distances, order))


def cluster_blockwise(x: Tensor, centres: int, neighbours: int) -> DensityPeaks:
    """:meth:`DensityPeaks.of` for so many rows that their distances may not fit in memory: these are made in blocks.

    Time grows with the square of the rows. Distances are kept where there are few enough of them, else made twice.

    Args:
        x: (n, D) floating point; what is not finite counts as 0.
        centres: m, from 1 to n.
        neighbours: k of the density estimate; at most n are used.
    """
    x = x.detach().float().nan_to_num(0.0, 0.0, 0.0)
    x = x - x.mean(0)
    square, count = (x * x).sum(1), len(x)
    step = row_chunk(count, x.device)
    blocks = [slice(first, min(first + step, count)) for first in range(0, count, step)]

    def distances(block: slice) -> Tensor:
        found = (square[block, None] + square - 2 * (x[block] @ x.T)).clamp_(min=0).sqrt_().div_(x.shape[1] ** 0.5)
        found.diagonal(block.start).zero_()
        return found

    few = count**2 <= _HELD
    held: Sequence[Tensor | slice] = [distances(block) for block in blocks] if few else blocks

    def all_distances() -> Iterator[Tensor]:
        yield from (each if isinstance(each, Tensor) else distances(each) for each in held)

    near = [nearest(found, min(neighbours, count)).square().mean(-1) for found in all_distances()]
    density = (-torch.cat(near)).exp()
    rank = rank_descending(density)
    gaps, widest = [], []
    for block, found in zip(blocks, all_distances(), strict=True):
        gaps.append(torch.where(rank < rank[block, None], found, torch.inf).amin(1))
        widest.append(found.amax())
    gap = torch.where(rank == 0, torch.stack(widest).amax(), torch.cat(gaps))
    order = (density * gap).argsort(descending=True, stable=True)[:centres].sort().values
    likeness = [2 * (x[block] @ x[order].T) - square[order] for block in blocks]  # a row's own square moves no argmax
    cluster = torch.cat([part.argmax(1) for part in likeness])
    cluster[order] = torch.arange(centres, device=x.device)
    return DensityPeaks(order, cluster)
