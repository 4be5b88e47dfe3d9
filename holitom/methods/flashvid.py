"""FlashVID: tree-based spatiotemporal token merging (arXiv 2602.08024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Attention, Need
from holitom.methods.exact import ExactMethod
from holitom.methods.sinks import SinkAware
from holitom.ops.diversity import farthest_batched, token_distances
from holitom.ops.ranking import top_indexes
from holitom.ops.similarity import row_chunk
from holitom.ops.temporal import consecutive_cosine, frame_means, lowest_cuts, spans_of_cuts, token_norms
from holitom.ops.trees import Forest, cluster_trees, grow_trees
from holitom.tokens import SpanStates, VideoTokens, check_share

NEIGHBOURS = 7  # of the density estimate


@dataclass(frozen=True)
class FlashVID(SinkAware, ExactMethod):
    """Keeps important and diverse tokens, merges the others along trees over time and in clusters over space.

    Paper: https://arxiv.org/abs/2602.08024. Of B = ceil(N * retention * expansion) tokens a frame, ceil(B * alpha) are
    selected: greedily the token farthest from all selected ones, distances weighted by scores (and by how much a token
    agrees with its segment's mean). Within a segment each other token moves to the most similar one of the frame
    before, if their cosine is above tau; what stays is averaged over its tree and clustered (DPC) in its frame, so
    that the segment comes down to its budget, up to one token a frame more. Outputs by position.

    In the official code a tree is divided by its root's direct children alone, so that deep trees grow in norm; a
    selected token can be selected again; in a segment of one frame the selected tokens also join clusters. Here not.

    Args:
        retention: share of the visual tokens that enter the LLM. The official r counts the average over 28 layers with
            the inner stage: r = 0.25 enters with a share of 0.3125, ``FlashVID(0.25, expansion=1.25)``.
        expansion: factor on the retention.
        alpha: share of the selected tokens.
        tau: above which cosine tokens move.
        segment_threshold: a cosine; a video is cut between frames whose means are less alike. None: one segment.
        min_segments: the fewest segments of a video that is cut (official Qwen scripts: 4).
        selection: ``"attn_div_v2"`` (official for LLaVA), ``"attn_div"`` (without agreement; official for Qwen),
            ``"div"`` (unweighted) or ``"attn"`` (the largest scores).
        layer: the decoder layer in front of which tokens go: an index, a share of the depth (published: 20 of 28), or
            None for the stage before the LLM alone.
        inner_retention: share that stays there: the ceil(V * inner_retention) tokens to which the last prompt token
            attends most.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are the best-scored ones
            that anchor nothing, excess outputs are those with the lowest-scored anchors.
    """

    name: ClassVar[str] = "flashvid"
    paper: ClassVar[str] = "https://arxiv.org/abs/2602.08024"
    venue: ClassVar[str] = "ICLR 2026"
    looks_at: ClassVar[str] = "patch scores, features, attention"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    attention: ClassVar[Attention] = "last"

    retention: float = 0.25
    alpha: float = 0.7
    tau: float = 0.8
    segment_threshold: float | None = 0.9
    min_segments: int = 8
    expansion: float = 1.0
    selection: Literal["attn_div_v2", "attn_div", "div", "attn"] = "attn_div_v2"
    layer: float | int | None = 20 / 28
    inner_retention: float = 0.3
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("alpha", self.alpha)
        if not -1 <= self.tau <= 1:
            raise ValueError(f"tau is a cosine and must lie in [-1, 1], got {self.tau!r}")
        if not self.expansion > 0 or self.min_segments < 1:
            raise ValueError(
                f"expansion={self.expansion!r} must be above 0, min_segments={self.min_segments!r} at least 1"
            )

    def split(self, positions: int) -> tuple[int, int]:
        """The selected and the merged tokens of a frame of N positions."""
        budget = min(positions, max(1, math.ceil(positions * self.retention * self.expansion)))
        selected = math.ceil(budget * self.alpha)
        return selected, budget - selected

    def cut(self, means: Tensor) -> list[tuple[int, int]]:
        """The first and last frame of each segment, from frame means (T, D). Waits for the device."""
        if self.segment_threshold is None:
            return [(0, len(means) - 1)]
        alike = consecutive_cosine(means).cpu()
        cuts = alike < self.segment_threshold
        missing = self.min_segments - 1 - int(cuts.sum())
        if missing > 0:  # a cut can be found again where all others are as unlike
            cuts |= lowest_cuts(alike.masked_fill(cuts, 1.0), missing)
        return spans_of_cuts(cuts)

    def select(self, features: Tensor, scores: Tensor, agreement: Tensor, count: int) -> Tensor:
        """(T, count) int64: the selected tokens of each frame. scores (T, N); agreement (T, D), the segments' means."""
        if self.selection == "attn":
            return top_indexes(scores, count)
        picked = []
        step = row_chunk(features.shape[1] * max(features.shape[1:]), features.device)
        step = step if features.device.type != "cpu" else max(1, (1 << 20) // features.shape[1] ** 2)
        for start in range(0, len(features), step):
            x = features[start : start + step].float()
            distance = token_distances(x, token_norms(x).clamp_(min=torch.finfo(torch.float32).tiny))
            if self.selection != "div":
                distance *= scores[start : start + step, None]
            if self.selection == "attn_div_v2":
                distance *= (x @ agreement[start : start + step, :, None]).transpose(1, 2)
            picked.append(self.pick(distance.nan_to_num_(), count))
        return torch.cat(picked)

    def pick(self, distance: Tensor, count: int) -> Tensor:
        """(B, N, N) distances -> (B, count) int64: the selected tokens of some frames."""
        return farthest_batched(distance, count)

    def pool(self, free: Tensor, spans: list[tuple[int, int]]) -> Tensor:
        """(T, N) bool, the tokens that are not selected -> those that take part in the trees of their segments."""
        return free

    def divisor(self, forest: Forest) -> Tensor:
        """(S,) by what the sum of each root's tree is divided."""
        return forest.size

    def choose(self, video: VideoTokens) -> tuple[Merge, Tensor]:
        """Selects, grows trees and clusters. Waits for the device twice: for the cuts and for how
        many roots there are.

        Raises:
            ValueError: when the video has no patch scores.
        """
        (scores, _), features, positions = self.ranked(video), video.features, video.positions
        device, selected_count, merged_count = features.device, *self.split(positions)
        means = frame_means(features)
        spans = self.cut(means)
        length = torch.tensor([last - first + 1 for first, last in spans], device="cpu")
        segment = torch.repeat_interleave(torch.arange(len(spans), device="cpu"), length)
        together = (segment[:, None] == segment).float() / length[segment][:, None]
        agreement = together.to(device, non_blocking=True) @ means
        selected = self.select(features, scores, agreement, selected_count)
        free = torch.ones(scores.shape, dtype=torch.bool, device=device).scatter_(1, selected, False)
        anchor = (selected + torch.arange(video.frames, device=device)[:, None] * positions).flatten()
        source, weight, count = anchor, scores.new_ones(len(anchor)), len(anchor)
        output, distinct = torch.arange(count, device=device), None
        if merged_count:
            pool = self.pool(free, spans)
            forest = grow_trees(features, pool, spans, self.tau, selected_count + merged_count)
            found = cluster_trees(features, free, pool, forest, self.divisor(forest), spans, merged_count, NEIGHBOURS)
            source, output = torch.cat([source, found.source]), torch.cat([output, found.output + count])
            weight, anchor = torch.cat([weight, found.weight]), torch.cat([anchor, found.anchor])
            distinct = found.distinct
        anchor, order = anchor.sort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=device)
        return Merge.from_edges(source, place[output], weight, anchor, scores.numel(), distinct), scores.flatten()

    def merge_span(self, span: SpanStates) -> Merge:
        """Keeps the most attended tokens, in order. No synchronisation."""
        attention = span.require_attention("FlashVID")
        length = attention.numel()
        return Merge.keep(top_indexes(attention, math.ceil(length * self.inner_retention)), length)
