"""EVS: efficient video sampling (NVIDIA, 2025), as vLLM ships it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.content import ContentBudget
from holitom.methods.exact import ExactMethod
from holitom.ops import neighbour_cosine
from holitom.ops.budget import keep_exactly
from holitom.ops.content import floor_of_stretches
from holitom.tokens import VideoTokens, exact_count

FIRST_FRAME = 255.0  # the change ascribed to a frame without a predecessor: above any 1 - cosine


@dataclass(frozen=True)
class EVS(ContentBudget, ExactMethod):
    """Drops the tokens that change least from one frame to the next: change = 1 - cos(f[t, n], f[t-1, n]).

    Paper: https://arxiv.org/abs/2510.14624. Reproduces vLLM's ``evs``. The first frame has no predecessor and stays
    whole, so never fewer than one frame's tokens remain; of equal changes the earlier token stays.

    Args:
        retention: share of the visual tokens that enter the LLM: max(N, round(T*N * retention)) tokens.
        pruning_rate: vLLM's parameter q in [0, 1), instead of the retention: max(N, floor(T*N * (1 - q))) tokens.
        exact: keep exactly ``exact_count(T, (h, w), retention)``, also below one frame (then the first positions of
            the first frame, as all its changes are equal).
    """

    name: ClassVar[str] = "evs"
    paper: ClassVar[str] = "https://arxiv.org/abs/2510.14624"
    venue: ClassVar[str] = "arXiv 2025"
    looks_at: ClassVar[str] = "change"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    pruning_rate: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.pruning_rate, self.exact or self.change is not None)

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """See the class: at least one frame's tokens."""
        positions = grid[0] * grid[1]
        if self.pruning_rate is not None:
            return max(positions, math.floor(frames * positions * (1 - self.pruning_rate)))
        return max(positions, exact_count(frames, grid, self.retention))

    def changes(self, features: Tensor) -> Tensor:
        """(T, N, D) -> (T, N) float32: how much each token differs from the one before it."""
        change = torch.full(features.shape[:2], FIRST_FRAME, dtype=torch.float32, device=features.device)
        change[1:] = 1 - neighbour_cosine(features)
        return change

    def merge_video(self, video: VideoTokens) -> Merge:
        """See :meth:`Method.merge_video`. With ``change`` each eighth of the video has a floor, so that an early scene
        cannot take all: half of the tokens are shared out equally, as far as there is something new."""
        if self.change is None:
            return super().merge_video(video)
        (count, new), worth = self.wanted(video), self.changes(video.features)
        return Merge.keep(keep_exactly(floor_of_stretches(worth, new, count), worth.flatten(), count), worth.numel())

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """The tokens with the largest change over the whole video. No synchronisation."""
        return None, self.changes(video.features).flatten()


def check_rate(rate: float | None, exact: bool) -> None:
    """Raises ValueError unless a pruning rate is None or in [0, 1), and not combined with ``exact``."""
    if rate is None:
        return
    if not 0 <= rate < 1:
        raise ValueError(f"pruning_rate is the share of tokens that go and must lie in [0, 1), got {rate!r}")
    if exact:
        raise ValueError("pruning_rate brings its own count: leave it out with exact=True or change, or leave both")
