"""VidCom2: video compression commander (Liu et al., EMNLP 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.methods.evs import check_rate
from holitom.methods.exact import ExactMethod
from holitom.ops.ranking import keep_top
from holitom.ops.temporal import channel_variance, dots_with, weighted_frame_sums
from holitom.tokens import VideoTokens

BANDWIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
TEMPERATURE = 0.01


@dataclass(frozen=True)
class VidCom2(ExactMethod):
    """Gives unusual frames more tokens, and in each frame keeps the tokens that are unlike the video and the frame.

    Paper: https://arxiv.org/abs/2505.14454. On the half of the channels with the lowest variance, u is a token's unit
    vector, c and c_t the means of u over the video and over frame t, and G(u, c) a sum of Gaussian kernels. A frame's
    share is retention * (1 + P_t - mean P) with P = softmax of -mean G(u, c) / 0.01; in it the tokens with the lowest
    G(u, c) + G(u, c_t) stay. The count is near the budget, not on it: shares are rounded for each frame, so a
    retention of 1 does not keep everything either.

    Args:
        retention: share of the visual tokens that enter the LLM (the official ``base``).
        pruning_rate: vLLM's parameter q in [0, 1), instead of the retention, with vLLM's exact count:
            max(T, floor(T*N * (1 - q))).
        exact: keep exactly ``exact_count(T, (h, w), retention)``: the least unusual kept tokens of the whole video go,
            or the most unusual dropped ones come back (vLLM's rule).

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "vidcom2"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.14454"

    retention: float = 0.25
    pruning_rate: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.pruning_rate, self.exact)

    def own_count(self, frames: int, grid: tuple[int, int]) -> int | None:
        """vLLM's count for a pruning rate; otherwise it depends on the content."""
        if self.pruning_rate is None:
            return None
        return max(frames, math.floor(frames * grid[0] * grid[1] * (1 - self.pruning_rate)))

    def redundancy(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """How usual each token is, in the video and in all: G(u, c) and G(u, c) + G(u, c_t), (T, N) each."""
        positions, width = features.shape[1:]
        calm = channel_variance(features).argsort(stable=True)[: max(1, width // 2)]
        chosen = torch.zeros(width, dtype=torch.float32, device=features.device)
        chosen.index_fill_(0, calm, 1.0)
        sums, norms = weighted_frame_sums(features, chosen)
        frame = sums / positions
        whole = frame.mean(0)
        centres = torch.stack([whole.expand_as(frame), frame], 1)
        dots = dots_with(features, centres) / norms[:, :, None]
        length = centres.square().sum(-1)
        distance = 1 + length[:, None] - 2 * dots  # |u - c|^2 for a unit vector u
        kernel = torch.zeros_like(distance)
        for bandwidth in BANDWIDTHS:
            kernel += (-distance / (2 * bandwidth)).exp()
        return kernel[..., 0], kernel[..., 0] + kernel[..., 1]

    def choose(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """The unusual tokens of each frame."""
        share = self.retention if self.pruning_rate is None else 1 - self.pruning_rate
        usual, score = self.redundancy(video.features)
        weight = (-usual.mean(1).nan_to_num() / TEMPERATURE).softmax(0)
        shares = (share * (1 + weight - weight.mean())).clamp(max=1)
        counts = (shares * video.positions).round().clamp(1, video.positions).long()
        return keep_top(-score, counts).flatten(), -score.flatten()
