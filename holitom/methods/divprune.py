"""DivPrune: diversity-based visual token pruning (Alvar et al., CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.methods.exact import ExactMethod
from holitom.ops.diversity import farthest_rows
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class DivPrune(ExactMethod):
    """Keeps the tokens of a video that are most unlike each other: the max-min diversity problem, solved greedily.

    Paper: https://arxiv.org/abs/2503.02175. With d = 1 - cos over all tokens of the video, the first pick is the token
    whose nearest neighbour is farthest, every further one the token whose nearest pick is farthest. The official code
    may pick a token again where all others duplicate a pick; here none is picked twice. Neither scores nor text are
    used. The first pick looks at every pair of tokens, which makes this the slowest method here, and quadratic.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact. Published:
            0.098.
        exact: accepted for uniformity; the count is exact in any case.
    """

    name: ClassVar[str] = "divprune"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.02175"
    venue: ClassVar[str] = "CVPR 2025"
    looks_at: ClassVar[str] = "features"
    exact_count: ClassVar[bool] = True

    retention: float = 0.098
    exact: bool = True

    def choose(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """The most diverse tokens."""
        rows = video.features.flatten(0, 1)
        kept = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        count = self.token_count(video.frames, video.grid)
        kept = ~kept if count == len(rows) else kept.index_fill_(0, farthest_rows(rows, count), True)
        return kept, kept.to(torch.float32)
