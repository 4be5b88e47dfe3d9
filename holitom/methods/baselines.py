"""The naive baselines that every table needs: fewer frames, random tokens before or inside the LLM, coarser frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.methods.exact import ExactMethod
from holitom.ops.budget import spread_scores
from holitom.ops.inner import join_survivors, split_by_rank
from holitom.tokens import SpanStates, TowerStates, VideoTokens


@dataclass(frozen=True)
class Uncompressed(Method):
    """Keeps every token: what methods are compared with.

    Args:
        stock: run the vision tower as transformers does, without what every session computes sooner with the same
            result (docs/tower.md).
    """

    name: ClassVar[str] = "uncompressed"
    exact_count: ClassVar[bool] = True

    stock: bool = False

    def with_token_count(self, count: int, frames: int, grid: tuple[int, int]) -> Uncompressed:
        """This method, if that is as many as there are."""
        if count < self.token_count(frames, grid):
            raise ValueError(
                f"a budget of {count} tokens is less than the {self.token_count(frames, grid)} of the video: name a "
                "method that is to meet it"
            )
        return self


@dataclass(frozen=True)
class UniformFrames(ExactMethod):
    """Keeps evenly spaced frames whole and drops the others.

    Of m = round(T * retention) frames (at least 1), the i-th is frame floor((i + 1/2) * T / m).

    Args:
        retention: share of the visual tokens that enter the LLM, rounded to whole frames.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: what differs from whole frames is spread
            evenly over all dropped tokens, or taken evenly from the kept ones.
    """

    name: ClassVar[str] = "uniformframes"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    exact: bool = False

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """Whole frames."""
        return max(1, round(frames * self.retention)) * grid[0] * grid[1]

    def choose(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """Whole frames. No synchronisation."""
        frames, positions, device = video.frames, video.positions, video.features.device
        count = max(1, round(frames * self.retention))
        kept = torch.zeros(frames, dtype=torch.bool, device="cpu")
        kept[[(2 * i + 1) * frames // (2 * count) for i in range(count)]] = True
        kept = kept.to(device, non_blocking=True)[:, None].expand(-1, positions)
        return kept.flatten(), spread_scores(frames * positions, device)


@dataclass(frozen=True)
class RandomDrop(ExactMethod):
    """Keeps a random choice of tokens, the same for every video of one shape.

    Args:
        retention: share of the visual tokens that enter the LLM: exactly ``exact_count(T, (h, w), retention)``.
        seed: of the choice, which does not depend on the device.
        exact: accepted for uniformity; the count is exact in any case.
    """

    name: ClassVar[str] = "randomdrop"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    seed: int = 0
    exact: bool = True

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """A random rank for each token."""
        ranks = _random_ranks(video.frames * video.positions, self.seed)
        return None, ranks.to(video.features.device, torch.float64, non_blocking=True)


@dataclass(frozen=True)
class RandomInner(Method):
    """Inside the LLM, keeps a random choice of visual tokens: what a choice by attention must beat.

    Args:
        layer: the decoder layer in front of which tokens go, an index or a share of the depth (HoliTom's default).
        inner_retention: share of the visual tokens that stay: round(V * inner_retention), at least 1.
        merge: average each of the others into the survivor most like it, instead of dropping it.
        seed: of the choice, which depends on the number of tokens alone.
    """

    name: ClassVar[str] = "randominner"

    layer: float | int = 18 / 28
    inner_retention: float = 0.5
    merge: bool = False
    seed: int = 0

    def merge_span(self, span: SpanStates) -> Merge:
        """Survivors in their order. No synchronisation."""
        length = len(span.hidden)
        keep = max(1, round(length * self.inner_retention))
        ranks = _random_ranks(length, self.seed).to(span.hidden.device, non_blocking=True)
        if self.merge:
            return join_survivors(span.hidden, ranks, keep)
        return Merge.keep(split_by_rank(ranks, keep)[0], length)


@dataclass(frozen=True)
class AveragePool(ExactMethod):
    """Averages each frame over the cells of a coarser grid.

    The coarser grid is the one of at most (h, w) cells whose number is nearest to h*w * retention and, of those, whose
    cells are most nearly as many in a row as in the frame. Every position belongs to one cell.

    Args:
        retention: share of the visual tokens that enter the LLM, rounded to a grid.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens leave their cells, excess
            cells go, both spread evenly over the video.
    """

    name: ClassVar[str] = "averagepool"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    exact: bool = False

    def cells(self, grid: tuple[int, int]) -> tuple[int, int]:
        """The rows and columns of the coarser grid."""
        rows, columns = grid
        wanted = rows * columns * self.retention

        def misfit(shape: tuple[int, int]) -> tuple[float, float]:
            return abs(shape[0] * shape[1] - wanted), abs(math.log(shape[0] * columns / (shape[1] * rows)))

        return min(((h, w) for h in range(1, rows + 1) for w in range(1, columns + 1)), key=misfit)

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The cells of all frames."""
        return frames * math.prod(self.cells(grid))

    def choose(self, video: VideoTokens) -> tuple[Merge, Tensor]:
        """Averages each cell; a cell stands at its middle position. On the CPU."""
        (rows, columns), frames, positions = video.grid, video.frames, video.positions
        high, wide = self.cells(video.grid)
        down = torch.arange(rows, device="cpu") * high // rows
        cell = (down[:, None] * wide + torch.arange(columns, device="cpu") * wide // columns).flatten()
        size = torch.bincount(cell, minlength=high * wide)
        middle = _middles(rows, high)[:, None] * columns + _middles(columns, wide)
        frame = torch.arange(frames, device="cpu")[:, None]
        merge = Merge(
            (cell + frame * high * wide).flatten(),
            size[cell].to(torch.float32).reciprocal().repeat(frames),
            (middle.flatten() + frame * positions).flatten(),
        )
        return merge, spread_scores(merge.inputs)

    def merge_video(self, video: VideoTokens) -> Merge:
        """See :meth:`Method.merge_video`. No synchronisation."""
        return super().merge_video(video).to(video.features.device)


def _random_ranks(length: int, seed: int) -> Tensor:
    """(length,) int64 on the CPU: distinct, in random order, 0 the best and -(length - 1) the worst."""
    return -torch.randperm(length, generator=torch.Generator().manual_seed(seed), device="cpu").argsort()


def _middles(length: int, parts: int) -> Tensor:
    """(parts,) int64: the middle of each of the parts into which i -> i * parts // length cuts 0..length-1."""
    part = torch.arange(parts, device="cpu")
    first, after = -(-part * length // parts), -(-(part + 1) * length // parts)
    return (first + after - 1) // 2


@dataclass(frozen=True)
class RepeatFrames(Method):
    """The vision tower computes every n-th frame, and the others repeat the one before: fewer frames, as many tokens.

    What a stage inside the tower has to be better than.

    Args:
        every: n.

    Raises:
        ValueError: when ``every`` is below 1.
    """

    name: ClassVar[str] = "repeatframes"

    every: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """The first block."""
        return (0,)

    def merge_tower(self, states: TowerStates) -> Merge:
        """See :meth:`Method.merge_tower`."""
        (frames, patches), device = states.hidden.shape[:2], states.hidden.device
        source = torch.arange(frames * patches, device=device).view(frames, patches)
        shown = source[:: self.every].flatten()
        target = torch.arange(len(shown), device=device).view(-1, patches).repeat_interleave(self.every, 0)[:frames]
        return Merge(target.flatten(), (source // patches % self.every == 0).flatten().float(), shown)
