"""Spread: tokens far apart in content and in time, each standing for what is near it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from holitom.merge import DROPPED, Merge
from holitom.methods.base import Method, Positions
from holitom.ops.spread import LAST, directions, sketch, spread_in_order, spread_in_rounds
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class Spread(Method):
    """Picks tokens that are far apart in content and in time, and averages what is near a pick into it.

    This library's own method. The distance of two tokens is ``1 - cos + step * frames apart``, of features minus the
    video's mean; what is picked next is the token with the largest distance to its nearest pick times the norm of its
    centred feature. Every other token joins its nearest pick if that is nearer than ``join``. Needs no patch scores and
    no segments, has no threshold on raw cosines, and what it keeps at a smaller retention is a part of what it keeps at
    a larger one. Outputs stand in the order of their picks' places. The time between picks is part of what they say, so
    they keep their ``positions`` unless told otherwise.

    Args:
        retention: share of the visual tokens that enter the LLM: exactly ``exact_count(T, (h, w), retention)``.
        step: what one frame counts, in units of ``1 - cos``.
        join: how near a token must be to its pick to be averaged into it. 0: picks stay as they are, the rest is
            dropped.
        centre_weight: beta; an output is beta * pick + (1 - beta) * mean of those that joined it.
        width: channels of the sketch that decisions are made on; features with fewer are compared as they are.
        pick: ``"order"``: one token after the other, on the CPU; ``"rounds"``: many at a time, without waiting for the
            device; ``"auto"``: in order for features on a CPU, else in rounds.
        exact: accepted for uniformity; the count is exact in any case.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "spread"
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    step: float = 0.25
    join: float = 0.5
    centre_weight: float = 0.6
    width: int = 64
    pick: Literal["auto", "order", "rounds"] = "auto"
    exact: bool = True
    positions: Positions = field(default="original", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("retention", self.retention)
        if not self.step >= 0 or not self.join >= 0:
            raise ValueError(f"step={self.step!r} and join={self.join!r} are distances and must be at least 0")
        if not 0 <= self.centre_weight <= 1:
            raise ValueError(f"centre_weight must lie in [0, 1], got {self.centre_weight!r}")
        if self.width < 1:
            raise ValueError(f"width={self.width!r} is a number of channels, at least 1")

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The exact count."""
        return exact_count(frames, grid, self.retention)

    def merge_video(self, video: VideoTokens) -> Merge:
        """Picks, and lets what is near a pick join it. In rounds no synchronisation."""
        total, count = video.frames * video.positions, self.token_count(video.frames, video.grid)
        device = video.features.device
        if count == total:
            return Merge.identity(total, device)
        in_order = self.pick == "order" or (self.pick == "auto" and device.type == "cpu")
        unit, weight = directions(sketch(video.features, self.width))
        picks = (spread_in_order if in_order else spread_in_rounds)(unit, weight, count, self.step)
        anchor, order = picks.index.sort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(count, device=device)
        joins = (picks.distance < self.join) & (weight.flatten() > LAST)
        target = torch.where(joins, rank[picks.owner], DROPPED)
        target[picks.index] = rank
        size = torch.zeros(count + 1, dtype=torch.float32, device=device)  # the last place counts what is dropped
        size.index_add_(0, target % (count + 1), torch.ones(total, dtype=torch.float32, device=device))
        size = size[:count] - 1
        lone = size == 0
        share = ((1 - self.centre_weight) / size.clamp(min=1))[target.clamp(min=0)]
        share[anchor] = torch.ones_like(size).masked_fill_(~lone, self.centre_weight)
        return Merge(target, share, anchor)
