"""VidCom2: video compression commander (Liu et al., EMNLP 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.evs import check_rate
from holitom.methods.exact import ExactMethod
from holitom.ops.ranking import keep_top
from holitom.ops.temporal import channel_variance, dots_with, weighted_frame_sums
from holitom.tokens import VideoTokens

BANDWIDTHS = 5  # 1/8, 1/4, 1/2, 1 and 2: distances are divided by twice as much
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
    """

    name: ClassVar[str] = "vidcom2"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.14454"
    venue: ClassVar[str] = "EMNLP 2025"
    looks_at: ClassVar[str] = "features"

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
        nearness = torch.add((-1 - length)[:, None], dots, alpha=2)  # -|u - c|^2 for a unit vector u
        halves = torch.arange(2, 2 - BANDWIDTHS, -1, dtype=torch.float32, device=features.device)
        kernel = (nearness[..., None] * halves.exp2()).exp_().sum(-1)
        return kernel[..., 0], kernel.sum(-1)

    def choose(self, video: VideoTokens) -> tuple[Merge | Tensor, Tensor]:
        """The unusual tokens of each frame. Waits once for how many that are, unless the total is known."""
        usual, score = self.redundancy(video.features)
        usual, positions = usual.mean(1), video.positions
        if self.exact or self.pruning_rate is not None:
            return keep_top(-score, self.frame_counts(usual, positions)).flatten(), -score.flatten()
        counts = self.frame_counts(usual.cpu(), positions)
        order = score.nan_to_num(nan=torch.inf, posinf=torch.inf).argsort(dim=1, stable=True)
        chosen = torch.arange(positions, device="cpu") < counts[:, None]
        wanted = chosen.flatten().nonzero()[:, 0]  # places in that order
        first = wanted - wanted % positions
        wanted, first = torch.stack([wanted, first]).to(order.device, non_blocking=True)
        return Merge.keep((order.flatten()[wanted] + first).sort().values, score.numel()), score

    def frame_counts(self, usual: Tensor, positions: int) -> Tensor:
        """(T,) int64, the tokens that each frame keeps, from (T,) how usual its tokens are."""
        share = self.retention if self.pruning_rate is None else 1 - self.pruning_rate
        weight = (-usual.nan_to_num() / TEMPERATURE).softmax(0)
        shares = (share * (1 + weight - weight.mean())).clamp(max=1)
        return (shares * positions).round().clamp(1, positions).long()
