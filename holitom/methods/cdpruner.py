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
from holitom.tokens import VideoTokens

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class CDPruner(ExactMethod):
    """Keeps in each frame the tokens that are most relevant to the question and least like each other.

    Paper: https://arxiv.org/abs/2506.10967 (NeurIPS 2025). Relevance r of a token is its mean cosine with the
    question, brought to 0..1 over the video. With cosines S of the tokens of a frame, the kernel of a determinantal
    point process is L = diag(r) S diag(r); its greedy MAP inference picks the tokens. Every frame keeps as many, up to
    one; which frames keep one more, the last pick's gain decides.

    The official code is for images of LLaVA, whose CLIP tower comes with a text encoder, and compares CLIP's image and
    text embeddings; it negates their cosine, so that what is unlike the text counts as relevant. Video LLMs have no
    such encoder: here the language model's embeddings of the question's tokens are compared with the projected
    features, as they enter the LLM. The sign is the official one, which also wins by far on the testbed's validation
    clips. Different from the official code: a constant relevance is no division by zero, and no token is picked twice
    when more are kept than features have dimensions.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact.
        relevant: ``"unlike"``: tokens unlike the question are relevant, as in the official code; ``"like"``: those like
            it, as the paper has it.
        exact: accepted for uniformity; the count is exact in any case.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[str] = "https://arxiv.org/abs/2506.10967"
    venue: ClassVar[str] = "NeurIPS 2025"
    looks_at: ClassVar[str] = "question, features"
    needs: ClassVar[frozenset[Need]] = frozenset({"question"})
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    relevant: Literal["like", "unlike"] = "unlike"
    exact: bool = True

    def cosine(self, video: VideoTokens, norms: Tensor) -> Tensor:
        """(T, N) float32: the mean cosine of each token of norms (T, N) with the question's tokens.

        Raises:
            ValueError: when the video came without a question.
        """
        text = F.normalize(video.require_question(type(self).__name__), dim=1).mean(0)
        return dots_with(video.features, text.expand(video.frames, 1, -1))[:, :, 0] / norms

    def relevance(self, cosine: Tensor) -> Tensor:
        """(T, N) cosines -> (T, N) in 0..1; all 1 where they are all the same."""
        cosine = (cosine if self.relevant == "like" else -cosine).nan_to_num(0.0, 0.0, 0.0)
        spread = cosine.amax() - cosine.amin()
        return torch.where(spread > 0, (cosine - cosine.amin() + 1e-6) / spread.clamp(min=_TINY), 1.0)

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """What each token is worth: the earlier it is picked in its frame the more, then by what it adds."""
        norms = token_norms(video.features).clamp_(min=_TINY)
        scale = self.relevance(self.cosine(video, norms)) / norms
        each = -(-self.token_count(video.frames, video.grid) // video.frames)
        worth = torch.full(scale.shape, -torch.inf, dtype=torch.float32, device=scale.device)
        order = torch.arange(each, dtype=torch.float32, device=scale.device)
        step = row_chunk(video.positions**2, scale.device)
        for some in (slice(first, first + step) for first in range(0, video.frames, step)):
            x = video.features[some].float()
            kernel = (x @ x.transpose(1, 2)).mul_(scale[some, :, None]).mul_(scale[some, None])
            picked, added = greedy_determinant(kernel.nan_to_num_(0.0, 0.0, 0.0), each)
            worth[some] = worth[some].scatter(1, picked, added / (1 + added) - order)
        return None, worth.flatten()
