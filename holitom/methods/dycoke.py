"""DyCoke: dynamic compression of tokens for fast video LLMs (Tao et al., CVPR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.methods.exact import ExactMethod
from holitom.ops.ranking import keep_top
from holitom.ops.temporal import cosine_of_pairs
from holitom.tokens import VideoTokens, exact_count


@dataclass(frozen=True)
class DyCoke(ExactMethod):
    """In groups of four frames, drops the tokens that an earlier frame of the group already shows.

    Paper: https://arxiv.org/abs/2411.15024, its temporal merging (which prunes). Frames t = 0, 2, 4, ... stay whole
    and frame t+1 keeps the q = floor((1 - k) * N) tokens that are least similar to frame t; then, for t = 0, 4, 8, ...,
    frame t+2 keeps the q tokens that are least similar to frame t. For long videos about 1/4 + 3/4 * (1 - k) remain.

    The paper's second half, a smaller KV cache while decoding, is not here: it deletes nothing, and needs another
    selection in front of every generated token.

    The official code orders the tokens of a reduced frame by similarity, never reduces frame t+2 of the last group of
    four, drops an odd last frame and fails for four frames or fewer. Here tokens stay in order, the last group is a
    group like any other and a frame without a partner stays whole.

    Args:
        k: share of a reduced frame that goes, in [0, 1). The paper's experiments: 0.7.
        retention: share of the visual tokens that enter the LLM, instead of ``k``: q becomes what comes nearest.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are the dropped ones that
            are least similar to their reference, excess ones are the most similar (those of whole frames go last).

    Raises:
        ValueError: naming the parameter that is out of range; from :meth:`merge_video` and :meth:`token_count`, when
            the retention is out of reach because the reference frames alone are more.
    """

    name: ClassVar[str] = "dycoke"
    paper: ClassVar[str] = "https://arxiv.org/abs/2411.15024"
    venue: ClassVar[str] = "CVPR 2025"
    looks_at: ClassVar[str] = "change"
    exact_count: ClassVar[bool] = True

    k: float = 0.7
    retention: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.k < 1:
            raise ValueError(f"k is the share of a reduced frame that goes and must lie in [0, 1), got {self.k!r}")

    def references(self, frames: int) -> list[int]:
        """For each frame, the earlier frame it is compared with; -1: it stays whole."""
        return [-1 if t % 4 == 0 else t - 1 if t % 2 else t - 2 for t in range(frames)]

    def reduced(self, frames: int, positions: int) -> int:
        """q, the tokens that stay of a reduced frame of N positions.

        Raises:
            ValueError: when no q comes down to the retention.
        """
        if self.retention is None:
            return math.floor((1 - self.k) * positions)
        whole = self.references(frames).count(-1)
        wanted = exact_count(frames, (positions, 1), self.retention) - whole * positions
        if not self.exact and wanted < 0:
            raise ValueError(
                f"DyCoke keeps {whole} of {frames} frames whole and cannot come down to retention={self.retention!r}: "
                f"give at least {whole / frames:.3f}, or exact=True"
            )
        return min(positions, max(0, round(wanted / (frames - whole)))) if frames > whole else 0

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The whole frames and what stays of the others."""
        positions, whole = grid[0] * grid[1], self.references(frames).count(-1)
        return whole * positions + (frames - whole) * self.reduced(frames, positions)

    def similarity(self, features: Tensor) -> Tensor:
        """(T, N, D) -> (T, N) float32: how like its reference each token is; -2 in whole frames."""
        similarity = torch.full(features.shape[:2], -2.0, dtype=torch.float32, device=features.device)
        pairs = [(frame, earlier) for frame, earlier in enumerate(self.references(len(features))) if earlier >= 0]
        if features.device.type == "cpu":
            for frame, earlier in pairs:
                similarity[frame] = cosine_of_pairs(features[earlier][None], features[frame][None])[0]
        elif pairs:
            frame, earlier = torch.tensor(pairs, device="cpu").T.contiguous().to(features.device, non_blocking=True)
            similarity.index_copy_(0, frame, cosine_of_pairs(features[earlier], features[frame]))
        return similarity

    def choose(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """What the reference frames do not show already. No synchronisation."""
        worth = -self.similarity(video.features)
        size = self.reduced(video.frames, video.positions)
        counts = [size if earlier >= 0 else video.positions for earlier in self.references(video.frames)]
        counted = torch.tensor(counts, device="cpu").to(worth.device, non_blocking=True)
        return keep_top(worth, counted).flatten(), worth.flatten()
