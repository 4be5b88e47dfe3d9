"""Density-peak clustering (DPC-kNN): cluster centres are dense points far from any denser one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def pairwise_distances(x: Tensor) -> Tensor:
    """Euclidean distances between rows, divided by sqrt(D) as is usual for DPC, in float32.

    Args:
        x: (n, D) floating point.

    Returns:
        (n, n) float32, exactly symmetric, exactly zero on the diagonal.
    """
    x = x.detach().float()
    x = x - x.mean(0)  # the differences stay, and with smaller numbers less of them is lost to rounding
    gram = x @ x.T
    square = gram.diagonal()
    both = gram + gram.T  # symmetric even where a product rounds its two halves differently
    distance: Tensor = (square[:, None] + square[None, :] - both).clamp_(min=0).sqrt_() / x.shape[1] ** 0.5
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
