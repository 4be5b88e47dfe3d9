"""Spread: tokens far apart in content and in time, each standing for what is near it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from holitom.merge import DROPPED, Merge
from holitom.methods.base import Positions
from holitom.methods.content import ContentBudget
from holitom.methods.exact import ExactMethod
from holitom.ops.content import scarcity
from holitom.ops.spread import LAST, can_pick_in_order, directions, sketch, spread_in_order, spread_in_rounds
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class Spread(ContentBudget, ExactMethod):
    """Picks tokens that are far apart in content and in time, and averages what is near a pick into it.

    This library's own method. The distance of two tokens is ``1 - cos + step * frames apart``, of features minus the
    video's mean; what is picked next is the token with the largest distance to its nearest pick times the norm of its
    centred feature. Every other token joins its nearest pick if that is nearer than ``join``. Needs no patch scores and
    no segments, has no threshold on raw cosines, and what it keeps at a smaller retention is a part of what it keeps at
    a larger one. Outputs stand in the order of their picks' places, which they keep by default, because the time
    between picks is part of what they say.

    Args:
        retention: share of the visual tokens that enter the LLM: exactly ``exact_count(T, (h, w), retention)``.
        step: what one frame counts, in units of ``1 - cos``.
        join: how near a token must be to its pick to be averaged into it. 0: picks stay as they are, the rest is
            dropped.
        centre_weight: beta; an output is beta * pick + (1 - beta) * mean of those that joined it.
        width: channels of the sketch that decisions are made on; features with fewer are compared as they are.
        pick: ``"order"``: one token after the other; ``"rounds"``: many at a time, without waiting for the device;
            ``"auto"``: in order for features on a CPU, and for up to 8,192 tokens on a GPU with Triton, where that is
            one operation; else in rounds.
        exact: accepted for uniformity; the count is exact in any case.
        positions: as for every method; the default is ``"original"`` here.
    """

    name: ClassVar[str] = "spread"
    looks_at: ClassVar[str] = "features, time"
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
        if not self.step >= 0 or not self.join >= 0:
            raise ValueError(f"step={self.step!r} and join={self.join!r} are distances and must be at least 0")
        if not 0 <= self.centre_weight <= 1:
            raise ValueError(f"centre_weight must lie in [0, 1], got {self.centre_weight!r}")
        if self.width < 1:
            raise ValueError(f"width={self.width!r} is a number of channels, at least 1")

    def merge_video(self, video: VideoTokens) -> Merge:
        """Picks, and lets what is near a pick join it. Without a wait unless picks in order go through the CPU.

        With ``change`` it waits once, and tokens of an eighth of the video in which little is new weigh more.
        """
        total, device = video.frames * video.positions, video.features.device
        if self.change is None:
            count, new = self.token_count(video.frames, video.grid), None
        else:
            count, new = self.wanted(video)
        if count == total:
            return Merge.identity(total, device)
        unit, weight = directions(sketch(video.features, self.width))
        in_order = self.pick == "order" or (self.pick == "auto" and (device.type == "cpu" or can_pick_in_order(unit)))
        heavy = weight if new is None else weight * torch.from_numpy(scarcity(new)).to(device)
        picks = (spread_in_order if in_order else spread_in_rounds)(unit, heavy, count, self.step)
        anchor = picks.index.sort().values
        rank = torch.searchsorted(anchor, picks.index)
        apart = picks.distance >= self.join
        if self.join > 1:  # what is not finite has no direction: it is 1 and more from everything
            apart |= weight.flatten() <= LAST
        target = rank[picks.owner].masked_fill_(apart, DROPPED)
        if not 0 < self.join <= 1:  # else no pick is apart from itself
            target[picks.index] = rank
        return Merge.averaging(target, anchor, self.centre_weight)
