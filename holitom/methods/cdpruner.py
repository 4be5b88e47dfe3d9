"""CDPruner: tokens that are relevant to the question and unlike each other (arXiv 2506.10967)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.methods.base import Need
from holitom.methods.exact import ExactMethod
from holitom.ops.diversity import greedy_determinant
from holitom.ops.similarity import row_chunk
from holitom.ops.temporal import dots_with, token_norms
from holitom.tokens import VideoTokens, exact_count

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class CDPruner(ExactMethod):
    """Keeps in each frame the tokens that are most relevant to the question and least like each other.

    Paper: https://arxiv.org/abs/2506.10967 (NeurIPS 2025). Relevance r of a token is its mean cosine with the
    question, brought to 0..1 over the video. With cosines S of the tokens of a frame, the kernel of a determinantal
    point process is L = diag(r) S diag(r); its greedy MAP inference picks the tokens. Every frame keeps as many, up to
    one; which frames keep one more, the last pick's gain decides.

    The official code is for images of LLaVA, whose CLIP tower comes with a text encoder, and compares CLIP's image and
    text embeddings; it negates their cosine (patches of CLIP are the less like a text the more they show of it). Video
    LLMs have no such encoder: here the language model's embeddings of the question's tokens are compared with the
    projected features, as they enter the LLM. Different from the official code: a constant relevance is no division by
    zero, and no token is picked twice when more are kept than features have dimensions.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact.
        relevant: ``"like"``: tokens like the question are relevant; ``"unlike"``: the others, as in the official code.
        exact: accepted for uniformity; the count is exact in any case.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[str] = "https://arxiv.org/abs/2506.10967"
    needs: ClassVar[frozenset[Need]] = frozenset({"question"})
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    relevant: Literal["like", "unlike"] = "like"
    exact: bool = True

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """round(T*N * retention), at least 1."""
        return exact_count(frames, grid, self.retention)

    def compared(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """(T, N, C) and (L, C) in the same space: what stands for the tokens, and for the question.

        Raises:
            ValueError: when the video came without a question.
        """
        return video.features, video.require_question(type(self).__name__)

    def relevance(self, tokens: Tensor, question: Tensor) -> Tensor:
        """(T, N) float32 in 0..1: how relevant each token is to the question, from what :meth:`compared` gives."""
        text = F.normalize(question, dim=1).mean(0).expand(len(tokens), 1, -1)
        cosine = dots_with(tokens, text)[:, :, 0] / token_norms(tokens).clamp_(min=_TINY)
        cosine = (cosine if self.relevant == "like" else -cosine).nan_to_num(0.0, 0.0, 0.0)
        spread = cosine.amax() - cosine.amin()
        return torch.where(spread > 0, (cosine - cosine.amin() + 1e-6) / spread.clamp(min=_TINY), 1.0)

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """What each token is worth: the earlier it is picked in its frame the more, then by what it adds."""
        relevance, features = self.relevance(*self.compared(video)), video.features
        each = -(-self.own_count(video.frames, video.grid) // video.frames)
        worth = torch.full(relevance.shape, -torch.inf, dtype=torch.float32, device=features.device)
        order = torch.arange(each, dtype=torch.float32, device=features.device)
        step = row_chunk(video.positions**2, features.device)
        for first in range(0, video.frames, step):
            some = slice(first, first + step)
            unit = F.normalize(features[some].float(), dim=2).nan_to_num_(0.0, 0.0, 0.0)
            picked, added = greedy_determinant(unit * relevance[some, :, None], each)
            worth[some] = worth[some].scatter(1, picked, added / (1 + added) - order)
        return None, worth.flatten()
