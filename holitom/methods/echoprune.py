"""EchoPrune: tokens that the frame before does not tell, and that the question asks for (arXiv 2605.10050)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.methods.base import Need
from holitom.methods.exact import ExactMethod
from holitom.ops.ranking import rank_descending
from holitom.ops.similarity import row_chunk
from holitom.ops.temporal import dots_with, token_norms
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class EchoPrune(ExactMethod):
    """Keeps the tokens of a video that are relevant to the question and that the frame before does not predict.

    Paper: https://arxiv.org/abs/2605.10050, without official code. With unit vectors x of a frame's tokens and y of the
    frame's before, a token is worth its relevance less its two echoes:

    * relevance: the largest cosine with a token of the question;
    * correspondence: the cosine with the token at the same position of the frame before;
    * echo: the reconstruction x . sum_j p_j y_j from all tokens of that frame, p = softmax(x . y / temperature).

    The B tokens worth most over the whole video stay, where B // T belong to the first frame, which has none before it
    and is chosen by relevance. Written from the paper's abstract and what others reported of its equations and
    settings; its full text was not at hand, so where they erred, this does. As for CDPruner, the question is the
    language model's embeddings of the user's text, and the tokens are the projected features.

    Args:
        retention: share of the visual tokens that enter the LLM: round(T*N * retention), which is exact.
        temperature: of the softmax; small: only the most similar token counts. Reported: 0.5.
        exact: accepted for uniformity; the count is exact in any case.
    """

    name: ClassVar[str] = "echoprune"
    paper: ClassVar[str] = "https://arxiv.org/abs/2605.10050"
    venue: ClassVar[str] = "arXiv 2026"
    looks_at: ClassVar[str] = "question, change"
    needs: ClassVar[frozenset[Need]] = frozenset({"question"})
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    temperature: float = 0.5
    exact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature!r}")

    def choose(self, video: VideoTokens) -> tuple[None, Tensor]:
        """What each token is worth, the first frame's share above all others. No synchronisation."""
        features, question = video.features, F.normalize(video.require_question("EchoPrune"), dim=1)
        norms = token_norms(features).clamp_(min=torch.finfo(torch.float32).tiny)
        worth = dots_with(features, question.expand(video.frames, -1, -1)).amax(2) / norms
        step = row_chunk(video.positions**2, features.device)
        for first in range(1, video.frames, step):
            now, before = slice(first, first + step), slice(first - 1, min(first + step, video.frames) - 1)
            cosine = features[now].float() @ features[before].float().transpose(1, 2)
            cosine.div_(norms[now, :, None]).div_(norms[before, None]).nan_to_num_(0.0, 0.0, 0.0)
            echo = ((cosine / self.temperature).softmax(2) * cosine).sum(2)
            worth[now] -= cosine.diagonal(dim1=1, dim2=2) + echo
        total = self.token_count(video.frames, video.grid)
        share = min(video.positions, max(1, total // video.frames))
        worth[0] = torch.where(rank_descending(worth[0]) < share, torch.inf, -torch.inf)
        return None, worth.flatten()
