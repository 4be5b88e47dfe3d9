"""Unified-ST: one pool of tokens over space and time, and text-aware merging inside the LLM (arXiv 2603.21957)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import DROPPED, Merge
from holitom.methods.base import Attention, Need
from holitom.methods.exact import ExactMethod
from holitom.ops.density import cluster_blockwise
from holitom.ops.diversity import distinct_rows
from holitom.ops.inner import join_survivors
from holitom.ops.ranking import descending
from holitom.tokens import SpanStates, VideoTokens

NEIGHBOURS = 7  # of the density estimate; the paper's number is not known here


@dataclass(frozen=True)
class UnifiedST(ExactMethod):
    """Keeps attended tokens that are unlike each other, clusters the rest, and merges by the text inside the LLM.

    Paper: https://arxiv.org/abs/2603.21957 (CVPR 2026), without official code. Of B tokens, (1 - cluster_ratio) * B
    come from a pool over the whole video: in order of the attention that tokens receive in the vision tower (equation
    1), one is taken up when its largest cosine with those in the pool is below tau (2). All others are clustered around
    density peaks (3, 4); the means of the clusters fill up the B, and all stand in the order of the video. Inside the
    LLM, the tokens with the largest (1 - lambda) * A + lambda * S stay (9), where A is the largest attention from a
    text token and S the largest cosine with one, each brought to 0..1; the others join their most similar one, in plain
    means.

    Written from the paper's abstract and what others reported of its equations and settings; its full text was not at
    hand, so where they erred, this does. Text tokens are all those behind the video, the chat template's included. Time
    grows with the square of the tokens.

    Args:
        retention: share of the visual tokens that enter the LLM: exactly ``exact_count(T, (h, w), retention)``.
        tau: a cosine; tokens more alike are redundant. Reported: 0.7.
        cluster_ratio: share of B that are clusters; more where the pool stays smaller. Reported: 0.3.
        layer: the decoder layer in front of which tokens merge: an index, a share of the depth (reported: 18 of 28), or
            None for the stage before the LLM alone.
        inner_retention: share that stays there. Reported: 0.5.
        text_similarity: lambda, the weight of the cosine beside the attention. Reported: 0.5.
        exact: accepted for uniformity; the count is exact in any case.
    """

    name: ClassVar[str] = "unifiedst"
    paper: ClassVar[str] = "https://arxiv.org/abs/2603.21957"
    venue: ClassVar[str] = "CVPR 2026"
    looks_at: ClassVar[str] = "patch scores, features, text"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    attention: ClassVar[Attention] = "text"
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    tau: float = 0.7
    cluster_ratio: float = 0.3
    layer: float | int | None = 18 / 28
    inner_retention: float = 0.5
    text_similarity: float = 0.5
    exact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.tau <= 1:
            raise ValueError(f"tau is a cosine and must lie in [-1, 1], got {self.tau!r}")
        for name in ("cluster_ratio", "text_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")

    def merge_video(self, video: VideoTokens) -> Merge:
        """Fills the pool, then clusters what is not in it. Waits for the device."""
        scores, rows = video.require_scores("UnifiedST").flatten(), video.features.flatten(0, 1)
        count = self.token_count(video.frames, video.grid)
        target = torch.full((len(rows),), DROPPED, dtype=torch.int64, device=rows.device)
        size = max(1, count - round(count * self.cluster_ratio))
        anchor = distinct_rows(rows, descending(scores), size, self.tau)
        target[anchor] = torch.arange(len(anchor), device=rows.device)
        if len(anchor) < count:
            rest = (target < 0).nonzero()[:, 0]
            peaks = cluster_blockwise(rows[rest], count - len(anchor), NEIGHBOURS)
            target[rest] = len(anchor) + peaks.cluster
            anchor = torch.cat([anchor, rest[peaks.centres]])
        anchor, order = anchor.sort()
        place = torch.empty_like(order)
        place[order] = torch.arange(count, device=rows.device)
        target = torch.where(target < 0, DROPPED, place[target])
        share = 1 / torch.bincount(target + 1, minlength=count + 1).float()  # what is dropped counts first
        return Merge(target, share[target + 1], anchor)

    def merge_span(self, span: SpanStates) -> Merge:
        """The text-aware stage.

        Raises:
            TypeError: without the attention from the text or its states.
        """
        attention = span.require_attention("UnifiedST")
        if span.text is None:
            raise TypeError("UnifiedST compares visual tokens with the text behind them, but SpanStates.text is None")
        text = F.normalize(span.text.float(), dim=1)
        likeness = (F.normalize(span.hidden.float(), dim=1) @ text.T).amax(1)
        scores = (1 - self.text_similarity) * scaled(attention) + self.text_similarity * scaled(likeness)
        return join_survivors(span.hidden, scores, max(1, round(len(scores) * self.inner_retention)))


def scaled(values: Tensor) -> Tensor:
    """Values brought to 0..1; all 0 where they are all the same. Not a number: 0."""
    low, high = values.nan_to_num(0.0, 0.0, 0.0).aminmax()
    result: Tensor = (values.nan_to_num(0.0, 0.0, 0.0) - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return result
