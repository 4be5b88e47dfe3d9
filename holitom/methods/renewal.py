"""Renewal: inside the vision tower, only what has changed is computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.renewal import (
    begins_of,
    cut_positions,
    cut_segments,
    merge_rows,
    noise_floor,
    patch_distances,
    within_budget,
)
from holitom.tokens import TowerStates, check_share

WORTHWHILE = 0.9  # with more of the patches left than this, the tower does as well without routing


@dataclass(frozen=True)
class Renewal(Method):
    """A patch keeps its row of the tower until it differs from where that row began.

    The rest of the vision tower works on rows: one for all the frames in which a patch stays the same. No token is
    dropped; behind the tower each patch gets its row's state. The distance of two states is their squared difference
    over twice the video's spatial variance, about 1 for unrelated patches.

    Where more than 90 % of the patches would be left (sparse samples of films, hand-held cameras), the tower is left
    as it is.

    Args:
        change: the largest distance at which a patch keeps its row. 0: only equal patches do.
        guard: so many rings of neighbours of a renewed patch are renewed, too; 0: none.
        noise: the most that the camera's noise, which is measured, may add to ``change``.
        budget: a share of rows in (0, 1] in place of ``change``: the smallest distance that leaves no more rows is
            taken, up to 0.5. None: ``change`` holds.
        layer: the block of the tower in front of which patches merge. Early ones: the states of deep blocks hold
            outliers, and what is merged later saves less.
        max_frames: the longest row in frames.
        cut: ``"positions"``: each patch for itself; ``"segments"``: HoliTom's temporal segments, in which each static
            patch stays within ``change`` of its mean.

    Raises:
        TypeError: naming the parameter of a wrong type.
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "renewal"
    looks_at: ClassVar[str] = "change"

    change: float = 0.1
    guard: int = 1
    noise: float = 0.1
    budget: float | None = None
    layer: int = 1
    max_frames: int = 32
    cut: Literal["positions", "segments"] = "positions"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.change <= 1:
            raise ValueError(f"change is a distance between states and must lie in [0, 1], got {self.change!r}")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise adds to change and must lie in [0, 1], got {self.noise!r}")
        if self.budget is not None:
            check_share("budget", self.budget)
        for name, least in (("guard", 0), ("layer", 0), ("max_frames", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """The one block in front of which patches merge.

        Raises:
            ValueError: when the tower has no such block.
        """
        if self.layer >= depth:
            raise ValueError(f"layer={self.layer}, but this vision tower has the blocks 0..{depth - 1}")
        return (self.layer,)

    def merge_tower(self, states: TowerStates) -> Merge:
        """See :meth:`Method.merge_tower`. A frame's class token is always renewed.

        Everything is chosen on the device, which is waited for once; with ``budget`` or ``cut="segments"``, on the
        host.
        """
        hidden = states.hidden
        frames, total = hidden.shape[:2]
        patches, order = hidden[:, states.leading :], None  # of a frame, row by row
        if states.order is not None:
            order = states.order.cpu().argsort()[states.leading :].to(hidden.device, non_blocking=True)
            patches = hidden[:, order]
        windows = patch_distances(patches, self.max_frames)
        rule = cut_positions if self.cut == "positions" else cut_segments

        def cut(threshold: Tensor) -> Tensor:
            return begins_of(windows, lambda window: rule(window, threshold, *states.grid, self.guard))

        if self.budget is None:
            begins = cut(noise_floor(windows, self.noise if self.change else 0.0) + self.change)
        else:
            windows = [window.cpu() for window in windows]
            begins = within_budget(cut, self.budget * frames * patches.shape[1]).to(hidden.device)
        if states.leading or order is not None:
            every = torch.arange(frames, device=hidden.device)[:, None].repeat(1, total)
            every[:, order if order is not None else slice(states.leading, None)] = begins
            begins = every
        return merge_rows(begins, WORTHWHILE)
