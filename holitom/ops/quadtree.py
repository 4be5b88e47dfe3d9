"""Quadtrees over grids of any size: what a node of each level covers, and means and extremes over its children.

A side of n is halved into pairs; of an odd side the first line is a node of its own. Source: STTM (arXiv 2507.07990).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def parents(size: int, device: torch.device | str = "cpu") -> Tensor:
    """(size,) int64: the node of the next coarser level that each line of a side belongs to."""
    return (torch.arange(size, device=device) + size % 2) // 2


def over_children(x: Tensor, dim: int, reduce: str) -> Tensor:
    """A coarser level from a finer one along one side.

    Args:
        x: (..., n, ...), n lines along ``dim``.
        dim: the side, counted from the front.
        reduce: "mean", "sum" or "amin" over the one or two lines of a node.

    Returns:
        (..., ceil(n / 2), ...).
    """
    size = x.shape[dim]
    pairs = x.narrow(dim, size % 2, size - size % 2).reshape(*x.shape[:dim], size // 2, 2, *x.shape[dim + 1 :])
    coarse: Tensor = getattr(torch, reduce)(pairs, dim + 1)
    return torch.cat([x.narrow(dim, 0, 1), coarse], dim) if size % 2 else coarse


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the nodes over a grid of H * W patches.

    Args:
        row: (H,) int64, the node row of each patch row.
        column: (W,) int64, the node column of each patch column.
        first_row: (H,) int64, the first patch row of that node.
        first_column: (W,) int64, the first patch column of that node.
        share: (H, W) float32, the share of each patch in its node's mean of means.
    """

    row: Tensor
    column: Tensor
    first_row: Tensor
    first_column: Tensor
    share: Tensor

    @property
    def nodes(self) -> tuple[int, int]:
        """Rows and columns of nodes."""
        return int(self.row[-1]) + 1, int(self.column[-1]) + 1


def levels(grid: tuple[int, int]) -> list[Level]:
    """All levels over a grid, on the CPU: from the coarsest, one side of which has at most two nodes, to the patches.

    Args:
        grid: (H, W).
    """
    sides = [_Side.of_patches(size) for size in grid]
    found = []
    while True:
        (rows, columns) = sides
        share = rows.share[:, None] * columns.share[None, :]
        found.append(Level(rows.node, columns.node, rows.first, columns.first, share))
        if min(rows.nodes, columns.nodes) <= 2:
            return found[::-1]
        sides = [side.halved() for side in sides]


@dataclass(frozen=True, eq=False)
class _Side:
    """(n,) for each line of a side: its node, that node's first line, and the line's share in the node's mean."""

    node: Tensor
    first: Tensor
    share: Tensor

    @property
    def nodes(self) -> int:
        return int(self.node[-1]) + 1

    @classmethod
    def of_patches(cls, size: int) -> _Side:
        lines = torch.arange(size, device="cpu")
        return cls(lines, lines, torch.ones(size, dtype=torch.float32, device="cpu"))

    def halved(self) -> _Side:
        parent = parents(self.nodes)
        node = parent[self.node]
        begins = torch.ones_like(node, dtype=torch.bool)
        begins[1:] = node[1:] != node[:-1]
        children = torch.bincount(parent)
        return _Side(node, begins.nonzero()[:, 0][node], self.share / children[node])
