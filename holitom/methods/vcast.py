"""V-CAST: tokens for the frames where the video turns (arXiv 2603.27650)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.ranking import keep_top
from holitom.ops.temporal import consecutive_cosine, dots_with, frame_means, token_norms
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class VCast(Method):
    """Gives frames at which the video's path bends more tokens, and keeps those that stand out of their frame.

    Paper: https://arxiv.org/abs/2603.27650. With e_t the unit mean of frame t, the curvature is
    1 - cos(e_t - e_{t-1}, e_{t+1} - e_t), 1 at both ends, and frames share the budget by its softmax. In a frame the
    tokens with the largest (1 - cos(f, e_t)) + (norm, scaled to 0..1 within the frame) stay.

    The official code hands what flooring leaves to the frame with the largest fraction until that is full, and leaves
    a single frame as it is. Here one token each goes to the largest fractions, and one frame obeys the budget too;
    ``parity=True`` restores the official behaviour.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact unless
            ``min_tokens`` asks for more.
        min_tokens: the least a frame gets.
        temperature: of the softmax over curvatures.
        parity: the official behaviour, see above.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens even where ``min_tokens`` a frame would be more
            (then only so many frames as there are tokens get one).

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "vcast"
    paper: ClassVar[str] = "https://arxiv.org/abs/2603.27650"
    exact_count: ClassVar[bool] = True

    retention: float = 0.25
    min_tokens: int = 1
    temperature: float = 0.7
    parity: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        check_share("retention", self.retention)
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens={self.min_tokens!r} is the least number of tokens a frame, at least 0")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature!r} must be above 0")
        if self.exact and self.parity:
            raise ValueError("exact=True and parity=True exclude each other: parity has the official counts")

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The number of tokens that stay, a function of the grid."""
        positions = grid[0] * grid[1]
        if self.parity and frames == 1:
            return positions
        count = exact_count(frames, grid, self.retention)
        return count if self.exact else max(count, frames * min(self.min_tokens, positions))

    def frame_counts(self, means: Tensor, positions: int, total: int) -> Tensor:
        """How many tokens each frame keeps: unit frame means (T, D), N -> (T,) int64 on the CPU with sum ``total``."""
        frames = len(means)
        curvature = torch.ones(frames)
        if frames > 2:
            curvature[1:-1] = 1 - consecutive_cosine(means.diff(dim=0)).cpu()
        weight = (curvature / self.temperature).softmax(0)
        least = min(self.min_tokens, positions, total // frames)
        raw = weight.double() * (total - frames * least)
        counts = raw.floor().long().clamp(max=positions - least) + least
        left = total - int(counts.sum())
        order = (raw - raw.floor()).argsort(descending=True, stable=True).tolist()
        while left > 0:  # a second round only where frames are full
            for t in order:
                more = min(left, positions - int(counts[t]), left if self.parity else 1)
                counts[t] += more
                left -= more
        return counts

    def merge_video(self, video: VideoTokens) -> Merge:
        """Keeps the outstanding tokens of each frame, in order."""
        features, frames, positions = video.features, video.frames, video.positions
        total = self.token_count(frames, video.grid)
        means = F.normalize(frame_means(features), dim=-1)
        counts = self.frame_counts(means, positions, total).to(features.device)
        norms = token_norms(features)
        tiny = torch.finfo(torch.float32).tiny
        unlike = 1 - dots_with(features, means[:, None])[..., 0] / norms.clamp(min=tiny)
        low, high = norms.amin(1, keepdim=True), norms.amax(1, keepdim=True)
        kept = keep_top(unlike + (norms - low) / (high - low + 1e-6), counts)
        return Merge.keep(kept.flatten().nonzero()[:, 0], frames * positions)
