"""HoliTom: holistic token merging for video LLMs (Shao et al., NeurIPS 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import send, sum_rows, sums_in_order
from holitom.merge import DROPPED, Merge
from holitom.methods._plan import Plan, plan_outer
from holitom.methods.base import Attention, Need
from holitom.methods.content import ContentBudget
from holitom.methods.exact import ExactMethod
from holitom.methods.segmenting import Segmenting
from holitom.methods.sinks import SinkAware
from holitom.methods.spread import Spread
from holitom.ops.content import new_first
from holitom.ops.density_groups import Clusters, Group, cluster_groups
from holitom.ops.inner import halving_weights, join_survivors, mean_weights
from holitom.ops.segmentation import Segmentation, segment
from holitom.ops.similarity import static_links
from holitom.ops.spread import directions, most_alike, picking_scores, sketch
from holitom.ops.streaming import SegmentStream
from holitom.tokens import SpanStates, VideoTokens, exact_count

PUBLISHED_FOR = "llava_onevision/siglip_vision_model"  # the tower that the paper's thresholds were set on
STATIC_SHARE = 0.4  # of the links, with similarity="auto"; chosen on the testbed's validation split
WIDTH = Spread.width


@dataclass(frozen=True)
class HoliTom(ContentBudget, Segmenting, SinkAware, ExactMethod):
    """Merges what stays the same over time, prunes what is left over space, and merges once more inside the LLM.

    Paper: https://arxiv.org/abs/2505.21334. Defaults reproduce the published behaviour, except for its bugs: every
    sample of a batch is merged by its own features and attention, the layer before the inner stage stays causal,
    equal densities are ordered by index rather than at random, and grids need not be square.

    Args:
        retention: share of the visual tokens that may enter the LLM, in (0, 1]. What is static is merged over time in
            any case, so of a clip with long static stretches fewer enter, however large the retention (below 1);
            ``exact=True`` fills the budget.
        similarity: tau; a position is static between two frames when their cosine is strictly above it. ``"auto"``: the
            threshold above which a fixed share of the video's own links lies, by the cosine of features minus their
            mean. None: what was published for LLaVA-OneVision's tower (0.65 at retentions below 0.15, 0.80 from there),
            and ``"auto"`` for every other tower, where nothing was published (see :meth:`for_tower`). At a retention of
            1 nothing is static and every token stays, unless a number says otherwise.
        scores: what ranks the tokens that move: ``"tower"``: the attention that the vision tower pays them, as
            published; ``"spread"``: the order in which :class:`~holitom.methods.Spread` would pick them. None:
            ``"spread"`` where the similarity is ``"auto"``, else ``"tower"``.
        layer: the decoder layer in front of which tokens merge again: an index, a share of the depth (published: 18 of
            28), or None for the outer stage alone (the paper's "w/o M").
        inner_retention: share of a video's tokens that stay at that layer.
        centre_weight: beta; a cluster is beta * centre + (1 - beta) * mean of the others. None: the plain mean.
        neighbours: k of the density estimate.
        max_frames: longest segment.
        inner_merge: ``"halving"``: dropped tokens are averaged into their survivor one after the other, as published;
            ``"mean"``: the plain mean of the survivor and all that join it.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: the budget is split over the merged static
            tokens of the segments and the dynamic tokens of the frames in proportion (largest remainder). Where there
            are fewer of them than the budget, the static sources with the largest scores stay unmerged.
    """

    name: ClassVar[str] = "holitom"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.21334"
    venue: ClassVar[str] = "NeurIPS 2025"
    looks_at: ClassVar[str] = "change, patch scores, attention"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    attention: ClassVar[Attention] = "last"
    sink_loss: ClassVar[float] = 29.0

    retention: float = 0.10
    similarity: float | Literal["auto"] | None = None
    scores: Literal["tower", "spread"] | None = None
    layer: float | int | None = 18 / 28
    inner_retention: float = 0.5
    centre_weight: float | None = 0.6
    neighbours: int = 7
    max_frames: int = 1024
    inner_merge: Literal["halving", "mean"] = "halving"
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.similarity, int | float) and not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity is a cosine and must lie in [-1, 1], got {self.similarity!r}: or say 'auto'")
        if self.centre_weight is not None and not 0 <= self.centre_weight <= 1:
            raise ValueError(
                f"centre_weight must lie in [0, 1], or be None for the plain mean; got {self.centre_weight!r}"
            )
        if self.neighbours < 1 or self.max_frames < 1:
            raise ValueError(f"neighbours={self.neighbours!r} and max_frames={self.max_frames!r} must be at least 1")

    @property
    def threshold(self) -> float | Literal["auto"]:
        """The similarity in force."""
        if self.similarity is None:
            return 1.0 if self.retention == 1 else 0.80 if self.retention >= 0.15 else 0.65
        return 1.0 if self.similarity == "auto" and self.retention == 1 else self.similarity

    def for_tower(self, tower: str) -> HoliTom:
        """See :meth:`Method.for_tower`: without a similarity, the published one or ``"auto"``."""
        if self.similarity is not None:
            return self
        return self if tower == PUBLISHED_FOR else replace(self, similarity="auto")

    def for_window(self, count: int, frames: int, grid: tuple[int, int]) -> HoliTom:
        """See :meth:`Segmenting.for_window`: the similarity is that of the whole video's retention."""
        share, threshold = count / (frames * grid[0] * grid[1]), self.threshold
        return replace(self, retention=share, exact=True, similarity=threshold, change=None)

    def links(self, features: Tensor, bonus: Tensor | None = None) -> Tensor:
        """The static links of some frames. An ``"auto"`` threshold is that of these frames.

        Args:
            features: (T, N, D) floating point.
            bonus: (N,) added to the cosines of each position that are compared with the threshold; None: nothing.

        Returns:
            (T-1, N) bool.
        """
        if self.threshold == "auto":
            return most_alike(directions(sketch(features, WIDTH))[0], STATIC_SHARE, bonus)
        return static_links(features, self.threshold, bonus)

    def stream(self, window: int) -> SegmentStream:
        """See :class:`~holitom.ops.SegmentStream`."""
        return SegmentStream(window, max_frames=self.max_frames)

    def segment(self, video: VideoTokens) -> Segmentation:
        """The temporal segments of a video (paper, section 3.2)."""
        return segment(self.links(video.features), self.max_frames)

    def merge_video(self, video: VideoTokens) -> Merge:
        """The stage before the LLM (paper, sections 3.2 and 3.3).

        Outputs come in the published order: for each segment its merged static tokens by position, then each frame's
        kept tokens by position. The links go to the host, where everything that can be counted is counted; the rest
        stays on the device of the features.

        Raises:
            ValueError: when the video has no patch scores, and they are asked for.
        """
        scores, sinks = self._rank(video)
        links = self.links(video.features).cpu().numpy()
        raised = None if sinks is None else self.links(video.features, self.sink_static * sinks).cpu().numpy()
        exact = self.token_count(video.frames, video.grid) if self.exact and self.change is None else None
        if self.change is not None:
            exact, new = self.wanted(video)
            scores = new_first(scores, new)
        least = 0 if self.change is None else 1
        cut, plan = plan_outer(links, self.max_frames, self.retention, exact, scores, raised, least)
        per_edge, per_column = (plan.source, plan.among, plan.begin), (plan.length, plan.first)
        sent = send([plan.column, plan.pick, plan.frame, plan.output, *per_column, *per_edge], video.features.device)
        column, pick, frame, output, length, first, *edges = sent
        ranked = scores.nan_to_num(nan=torch.finfo(torch.float32).min).masked_fill_(column != -1, -torch.inf)
        best = ranked.argsort(dim=1, descending=True, stable=True).flatten()[pick]
        kept, mine = (best + frame).sort().values, output[: len(pick)]
        spans = tuple(cut.spans)
        if not plan.groups:
            target = torch.full_like(column, DROPPED).flatten().scatter_(0, kept, mine)
            return Merge(target, torch.ones_like(scores).flatten(), kept, spans=spans)._knowing(len(pick))
        penalty = None if sinks is None else self.sink_peaks * sinks[first % video.positions]
        found = self._cluster(video.features, plan, edges, penalty)
        clusters = F.pad(output[len(pick) :][found.number], (0, 2), value=DROPPED)
        weight = F.pad(found.share / length, (0, 2), value=1.0)
        target = clusters[column].flatten().scatter_(0, kept, mine)
        anchor = torch.empty_like(output)
        anchor[output] = torch.cat([kept, first[found.centre]])
        merge = Merge(target, weight[column].flatten(), anchor, spans=spans)
        return merge._knowing(len(pick) + len(plan.source))

    def _rank(self, video: VideoTokens) -> tuple[Tensor, Tensor | None]:
        """(T, N) float32: what ranks the tokens that move; (N,) the sink scores, or None."""
        if (self.scores or ("spread" if self.similarity == "auto" else "tower")) == "tower":
            return self.ranked(video)
        unit, weight = directions(sketch(video.features, WIDTH))
        count = exact_count(video.frames, video.grid, min(1.0, 2 * self.retention))
        sinks = self.ranked(video)[1] if self.sink else None
        return picking_scores(unit, weight, count, Spread.step), sinks

    def _cluster(self, features: Tensor, plan: Plan, edges: list[Tensor], penalty: Tensor | None) -> Clusters:
        """Averages columns over time, and clusters those of each segment by density peaks less a penalty (C,)."""
        if all(size == clusters for size, clusters in plan.groups):
            every = torch.arange(len(plan.length), device=features.device)
            return Clusters(every, torch.ones_like(every, dtype=torch.float32), every)
        (source, among, begin), rows = edges, features.detach().flatten(0, 1)
        weight = among.reciprocal()
        if rows.device.type == "cpu":
            column = torch.repeat_interleave(plan.length)
            means = sums_in_order(rows, source, column, weight, len(plan.length)).to(rows.dtype)
        else:
            means = sum_rows(rows, source, begin, weight)
        groups = [Group(size, clusters, min(self.neighbours, clusters)) for size, clusters in plan.groups]
        return cluster_groups(means, groups, penalty, centre_weight=self.centre_weight)

    def merge_span(self, span: SpanStates) -> Merge:
        """The stage inside the LLM (paper, section 3.4): the tokens with the least attention join their most similar
        survivors.

        Returns:
            A map of V tokens to max(1, round(V * inner_retention)), survivors in their order.
        """
        attention = span.require_attention("HoliTom")
        keep = max(1, round(len(attention) * self.inner_retention))
        weigh = halving_weights if self.inner_merge == "halving" else mean_weights
        return join_survivors(span.hidden, attention, keep, weigh)
