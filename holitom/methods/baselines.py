"""The naive baselines that every table needs: fewer frames, random tokens, coarser frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.budget import fit_count, keep_exactly, spread_scores
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class UniformFrames(Method):
    """Keeps evenly spaced frames whole and drops the others.

    Of m = round(T * retention) frames (at least 1), the i-th is frame floor((i + 1/2) * T / m).

    Args:
        retention: share of the visual tokens that enter the LLM, rounded to whole frames.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: what differs from whole frames is spread
            evenly over all dropped tokens, or taken evenly from the kept ones.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "uniformframes"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    exact: bool = False

    def __post_init__(self) -> None:
        check_share("retention", self.retention)

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """Whole frames, or the exact count."""
        if self.exact:
            return exact_count(frames, grid, self.retention)
        return max(1, round(frames * self.retention)) * grid[0] * grid[1]

    def merge_video(self, video: VideoTokens) -> Merge:
        """Keeps whole frames. No synchronisation."""
        frames, positions, device = video.frames, video.positions, video.features.device
        count = max(1, round(frames * self.retention))
        middles = torch.tensor([(2 * i + 1) * frames // (2 * count) for i in range(count)])
        chosen = middles.to(device, non_blocking=True)
        index = (chosen[:, None] * positions + torch.arange(positions, device=device)).flatten()
        if self.exact:
            kept = torch.zeros(frames * positions, dtype=torch.bool, device=device)
            kept.index_fill_(0, index, True)
            scores = spread_scores(frames * positions, device)
            index = keep_exactly(kept, scores, self.token_count(frames, video.grid))
        return Merge.keep(index, frames * positions)


@dataclass(frozen=True)
class RandomDrop(Method):
    """Keeps a random choice of tokens, the same for every video of one shape.

    Args:
        retention: share of the visual tokens that enter the LLM: exactly ``exact_count(T, (h, w), retention)``.
        seed: of the choice, which does not depend on the device.
        exact: accepted for uniformity; the count is exact in any case.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "randomdrop"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    seed: int = 0
    exact: bool = True

    def __post_init__(self) -> None:
        check_share("retention", self.retention)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an int, got {self.seed!r}")

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The exact count."""
        return exact_count(frames, grid, self.retention)

    def merge_video(self, video: VideoTokens) -> Merge:
        """Keeps random tokens, in order."""
        total = video.frames * video.positions
        random = torch.Generator().manual_seed(self.seed)
        index = torch.randperm(total, generator=random)[: self.token_count(video.frames, video.grid)].sort().values
        return Merge.keep(index.to(video.features.device, non_blocking=True), total)


@dataclass(frozen=True)
class AveragePool(Method):
    """Averages each frame over the cells of a coarser grid.

    The coarser grid is the one of at most (h, w) cells whose number is nearest to h*w * retention and, of those, whose
    cells are most nearly as many in a row as in the frame. Every position belongs to one cell.

    Args:
        retention: share of the visual tokens that enter the LLM, rounded to a grid.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens leave their cells, excess
            cells go, both spread evenly over the video.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "averagepool"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    exact: bool = False

    def __post_init__(self) -> None:
        check_share("retention", self.retention)

    def cells(self, grid: tuple[int, int]) -> tuple[int, int]:
        """The rows and columns of the coarser grid."""
        rows, columns = grid
        wanted = rows * columns * self.retention

        def misfit(shape: tuple[int, int]) -> tuple[float, float]:
            return abs(shape[0] * shape[1] - wanted), abs(math.log(shape[0] * columns / (shape[1] * rows)))

        return min(((h, w) for h in range(1, rows + 1) for w in range(1, columns + 1)), key=misfit)

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The cells of all frames, or the exact count."""
        if self.exact:
            return exact_count(frames, grid, self.retention)
        rows, columns = self.cells(grid)
        return frames * rows * columns

    def merge_video(self, video: VideoTokens) -> Merge:
        """Averages each cell; a cell stands at its middle position. No synchronisation."""
        (rows, columns), frames, positions = video.grid, video.frames, video.positions
        high, wide = self.cells(video.grid)
        row, column, device = torch.arange(rows), torch.arange(columns), video.features.device
        cell = ((row * high // rows)[:, None] * wide + (column * wide // columns)[None, :]).flatten()
        size = torch.bincount(cell, minlength=high * wide)
        middle = _middles(rows, high)[:, None] * columns + _middles(columns, wide)
        frame = torch.arange(frames)[:, None]
        merge = Merge(
            (cell + frame * high * wide).flatten(),
            size[cell].reciprocal().repeat(frames),
            (middle.flatten() + frame * positions).flatten(),
            kept=frames * positions,
        )
        if self.exact:
            merge = fit_count(merge, spread_scores(merge.inputs), self.token_count(frames, video.grid))
        return merge.to(device)


def _middles(length: int, parts: int) -> torch.Tensor:
    """(parts,) int64: the middle of each of the parts into which i -> i * parts // length cuts 0..length-1."""
    part = torch.arange(parts)
    first, after = -(-part * length // parts), -(-(part + 1) * length // parts)
    return (first + after - 1) // 2
