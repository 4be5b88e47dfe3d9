"""V-CAST: tokens for the frames where the video turns (arXiv 2603.27650)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.methods.exact import ExactMethod
from holitom.ops.ranking import keep_top
from holitom.ops.temporal import consecutive_cosine, dots_with, frame_means, token_norms
from holitom.tokens import VideoTokens, exact_count


@dataclass(frozen=True)
class VCast(ExactMethod):
    """Gives frames at which the video's path bends more tokens, and keeps those that stand out of their frame.

    Paper: https://arxiv.org/abs/2603.27650. With e_t the unit mean of frame t, the curvature is
    1 - cos(e_t - e_{t-1}, e_{t+1} - e_t), 1 at both ends, and frames share the budget by its softmax. In a frame the
    tokens with the largest (1 - cos(f, e_t)) + (norm, scaled to 0..1 within the frame) stay.

    The official code hands what flooring leaves to the frame with the largest fraction until that is full, and leaves
    a single frame as it is. Here one token each goes to the largest fractions, and one frame obeys the budget too.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact unless
            ``min_tokens`` asks for more.
        min_tokens: the least a frame gets.
        temperature: of the softmax over curvatures.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens even where ``min_tokens`` a frame would be more
            (then only so many frames as there are tokens get one).
    """

    name: ClassVar[str] = "vcast"
    paper: ClassVar[str] = "https://arxiv.org/abs/2603.27650"
    venue: ClassVar[str] = "arXiv 2026"
    looks_at: ClassVar[str] = "features, change"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    min_tokens: int = 1
    temperature: float = 0.7
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens={self.min_tokens!r} is the least number of tokens a frame, at least 0")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature!r} must be above 0")

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The exact count, or ``min_tokens`` of every frame."""
        least = frames * min(self.min_tokens, grid[0] * grid[1])
        return max(least, exact_count(frames, grid, self.retention))

    def frame_counts(self, means: Tensor, positions: int, total: int) -> Tensor:
        """How many tokens each frame keeps: unit frame means (T, D), N -> (T,) int64 on the CPU with sum ``total``."""
        frames = len(means)
        curvature = torch.ones(frames, dtype=torch.float32, device="cpu")
        if frames > 2:
            curvature[1:-1] = 1 - consecutive_cosine(means.diff(dim=0)).cpu().nan_to_num()
        weight = (curvature / self.temperature).softmax(0)
        least = min(self.min_tokens, positions, total // frames)
        raw = weight.double() * (total - frames * least)
        counts = raw.floor().long().clamp(max=positions - least) + least
        return self.hand_out(counts, raw - raw.floor(), positions, total)

    def hand_out(self, counts: Tensor, fractions: Tensor, positions: int, total: int) -> Tensor:
        """Adds to (T,) counts what flooring has left: one token each to the largest fractions, in place."""
        left = total - int(counts.sum())
        order = fractions.argsort(descending=True, stable=True).tolist()
        while left > 0:  # a second round only where frames are full
            for t in order:
                more = min(left, positions - int(counts[t]), 1)
                counts[t] += more
                left -= more
        return counts

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """The outstanding tokens of each frame are worth 1, the others 0. Waits for the device once."""
        features = video.features
        means = F.normalize(frame_means(features), dim=-1)
        total = self.token_count(video.frames, video.grid)
        counts = self.frame_counts(means, video.positions, total).to(features.device, non_blocking=True)
        norms = token_norms(features)
        tiny = torch.finfo(torch.float32).tiny
        unlike = 1 - dots_with(features, means[:, None])[..., 0] / norms.clamp(min=tiny)
        low, high = norms.aminmax(dim=1, keepdim=True)
        worth = unlike + (norms - low) / (high - low + 1e-6)
        return None, keep_top(worth, counts).flatten().float()
