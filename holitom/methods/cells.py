"""Controls for tables: what is left when every small cell of a frame gives one token, drawn or averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class Cells(Method):
    """The base of the two controls: cells of ``side`` x ``side`` positions, smaller at the right and lower edge.

    Args:
        side: rows and columns of a cell; 2 keeps a quarter of the tokens.

    Raises:
        ValueError: for a side below 1.
    """

    exact_count: ClassVar[bool] = True

    side: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"side={self.side!r} is the number of rows and columns of a cell, at least 1")

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """One token for each cell."""
        return frames * -(-grid[0] // self.side) * -(-grid[1] // self.side)

    def cells(self, frames: int, grid: tuple[int, int]) -> Tensor:
        """(T*N,) int64 on the CPU: the cell of each token; cells count row by row, frame by frame."""
        rows, columns = (torch.arange(size, device="cpu") // self.side for size in grid)
        wide = -(-grid[1] // self.side)
        cell = (rows[:, None] * wide + columns).flatten()
        return (torch.arange(frames, device="cpu")[:, None] * self.token_count(1, grid) + cell).flatten()


@dataclass(frozen=True)
class CellSample(Cells):
    """Keeps one random token of every cell, the same ones for every video of one shape.

    Args:
        side: rows and columns of a cell; 2 keeps a quarter of the tokens.
        seed: of the choice, which does not depend on the device.
    """

    name: ClassVar[str] = "cellsample"

    seed: int = 0

    def merge_video(self, video: VideoTokens) -> Merge:
        """Keeps the first token of each cell in a random order. No synchronisation."""
        cell = self.cells(video.frames, video.grid)
        order = torch.randperm(len(cell), generator=torch.Generator().manual_seed(self.seed), device="cpu")
        by_cell = order[cell[order].argsort(stable=True)]
        sizes = torch.bincount(cell)
        chosen = by_cell[sizes.cumsum(0) - sizes].sort().values
        return Merge.keep(chosen.to(video.features.device, non_blocking=True), len(cell))


@dataclass(frozen=True)
class CellMean(Cells):
    """Averages every cell; the mean stands at the cell's first position.

    Args:
        side: rows and columns of a cell; 2 keeps a quarter of the tokens.
    """

    name: ClassVar[str] = "cellmean"

    def merge_video(self, video: VideoTokens) -> Merge:
        """Averages. No synchronisation."""
        cell = self.cells(video.frames, video.grid)
        sizes = torch.bincount(cell)
        by_cell = cell.argsort(stable=True)
        weight = sizes[cell].to(torch.float32).reciprocal()
        return Merge(cell, weight, by_cell[sizes.cumsum(0) - sizes]).to(video.features.device)
