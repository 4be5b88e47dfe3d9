"""HoliTom: holistic token merging for video LLMs (Shao et al., NeurIPS 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holitom.merge import DROPPED, Merge
from holitom.methods._plan import Plan, plan_outer
from holitom.methods.base import Attention, Method, Need, check_layer, resolve_layer
from holitom.ops.density import DensityPeaks
from holitom.ops.inner import halving_weights, mean_weights, nearest_kept, split_by_rank
from holitom.ops.ranking import keep_top
from holitom.ops.segmentation import Segmentation, segment
from holitom.ops.similarity import static_links
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class HoliTom(Method):
    """Merges what stays the same over time, prunes what is left over space, and merges once more inside the LLM.

    Paper: https://arxiv.org/abs/2505.21334. Defaults reproduce the published behaviour, except for its bugs: every
    sample of a batch is merged by its own features and attention, the layer before the inner stage stays causal,
    equal densities are ordered by index rather than at random, and grids need not be square.

    Args:
        retention: share of the visual tokens that may enter the LLM, in (0, 1]. What is static is merged over time in
            any case, so of a clip with long static stretches fewer enter, however large the retention (below 1);
            ``exact=True`` fills the budget.
        similarity: tau; a position is static between two frames when their cosine is strictly above it. None: the
            published setting for the retention: 0.65 below 0.15, 0.80 from there, and 1.0 (nothing is static, every
            token stays) at a retention of 1.
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

    Raises:
        TypeError, ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "holitom"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.21334"
    outer: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    attention: ClassVar[Attention] = "last"

    retention: float = 0.10
    similarity: float | None = None
    layer: float | int | None = 18 / 28
    inner_retention: float = 0.5
    centre_weight: float | None = 0.6
    neighbours: int = 7
    max_frames: int = 1024
    inner_merge: Literal["halving", "mean"] = "halving"
    exact: bool = False

    def __post_init__(self) -> None:
        check_share("retention", self.retention)
        check_share("inner_retention", self.inner_retention)
        check_layer("layer", self.layer)
        if self.similarity is not None and not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity is a cosine and must lie in [-1, 1], got {self.similarity!r}")
        if self.centre_weight is not None and not 0 <= self.centre_weight <= 1:
            raise ValueError(
                f"centre_weight must lie in [0, 1], or be None for the plain mean; got {self.centre_weight!r}"
            )
        if self.neighbours < 1 or self.max_frames < 1:
            raise ValueError(f"neighbours={self.neighbours!r} and max_frames={self.max_frames!r} must be at least 1")
        if self.inner_merge not in ("halving", "mean"):
            raise ValueError(f"inner_merge must be 'halving' or 'mean', got {self.inner_merge!r}")

    @property
    def threshold(self) -> float:
        """The similarity in force."""
        if self.similarity is not None:
            return self.similarity
        return 1.0 if self.retention == 1 else 0.80 if self.retention >= 0.15 else 0.65

    def retained(self, frames: int, grid: tuple[int, int]) -> int:
        """:func:`~holitom.tokens.exact_count` with ``exact=True``; otherwise the count depends on the content."""
        return exact_count(frames, grid, self.retention) if self.exact else super().retained(frames, grid)

    def segment(self, video: VideoTokens) -> Segmentation:
        """The temporal segments of a video (paper, section 3.2)."""
        return segment(static_links(video.features, self.threshold), self.max_frames)

    def merge_video(self, video: VideoTokens) -> Merge:
        """The stage before the LLM (paper, sections 3.2 and 3.3).

        Outputs come in the published order: for each segment its merged static tokens by position, then each frame's
        kept tokens by position. The links go to the host, where everything that can be counted is counted; the rest
        stays on the device of the features.

        Raises:
            ValueError: when the video has no patch scores.
        """
        scores = video.require_scores(type(self).__name__)
        links = static_links(video.features, self.threshold).cpu().numpy()
        exact = self.retained(video.frames, video.grid) if self.exact else None
        cut, plan = plan_outer(links, self.max_frames, self.retention, exact, scores)
        device = video.features.device
        column = plan.column.to(device, non_blocking=True)
        first, length = plan.first.to(device, non_blocking=True), plan.length.to(device, non_blocking=True)
        static = column >= 0
        over_time = Merge(column.flatten(), (1 / length)[column].flatten(), first) if len(first) else None
        cluster, share, centre, output = self._cluster(over_time, video.features, plan)

        ranked = scores.clamp(min=torch.finfo(torch.float32).min).masked_fill(static, -torch.inf)
        stays = keep_top(ranked, plan.kept.to(device, non_blocking=True)) & ~static
        place = stays.cumsum(1) - 1 + plan.output.to(device, non_blocking=True)[:, None]
        target = torch.where(stays, place, DROPPED)
        weight = torch.ones_like(scores)
        if len(first):
            target = torch.where(static, cluster[column], target)
            weight = torch.where(static, (share / length)[column], weight)
        anchor = target.new_zeros(plan.outputs + 1)  # the last place takes what is no anchor
        anchor.scatter_(
            0, torch.where(stays, place, plan.outputs).flatten(), torch.arange(static.numel(), device=device)
        )
        if len(first):
            anchor[output] = first[centre]
        return Merge(target.flatten(), weight.flatten(), anchor[:-1], spans=tuple(cut.spans))

    def _cluster(self, over_time: Merge | None, features: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clusters the columns of each segment by density peaks.

        Returns:
            For C columns and m clusters: (C,) output of each column, -1 where its segment keeps none; (C,) share of the
            column in it; (m,) the clusters' centre columns and (m,) their outputs.
        """
        if over_time is None:
            empty = plan.first.new_zeros(0).to(features.device)
            return empty, features.new_zeros(0, dtype=torch.float32), empty, empty
        crowded = any(part.clusters < part.stop - part.start for part in plan.parts)
        means = over_time.apply(features.flatten(0, 1)) if crowded else features
        cluster = over_time.anchor.new_full((over_time.outputs,), DROPPED)
        share = torch.ones(over_time.outputs, device=features.device)
        centres, outputs = [cluster[:0]], [cluster[:0]]
        for part in plan.parts:
            columns = slice(part.start, part.stop)
            numbers = torch.arange(part.clusters, device=cluster.device)
            if part.clusters == part.stop - part.start:
                peaks = DensityPeaks(numbers, numbers)
            elif part.clusters:
                peaks = DensityPeaks.of(means[columns], part.clusters, min(self.neighbours, part.clusters))
                share[columns] = self._shares(peaks)
            else:
                continue
            cluster[columns] = peaks.cluster + part.output
            centres.append(peaks.centres + part.start)
            outputs.append(numbers + part.output)
        return cluster, share, torch.cat(centres), torch.cat(outputs)

    def _shares(self, peaks: DensityPeaks) -> Tensor:
        """(n,) float32: beta for a centre with members and (1 - beta) / members for these; or the plain mean."""
        size = torch.zeros(len(peaks.centres), device=peaks.cluster.device)
        size = size.index_add_(0, peaks.cluster, torch.ones(len(peaks.cluster), device=size.device))
        if self.centre_weight is None:
            return (1 / size)[peaks.cluster]
        share = ((1 - self.centre_weight) / (size - 1).clamp(min=1))[peaks.cluster]
        share[peaks.centres] = torch.where(size > 1, self.centre_weight, 1.0)
        return share

    def layers(self, depth: int) -> tuple[int, ...]:
        """The one layer of the inner stage, or none."""
        return () if self.layer is None else (resolve_layer("layer", self.layer, depth),)

    def merge_inner(self, hidden: Tensor, attention: Tensor) -> Merge:
        """The stage inside the LLM (paper, section 3.4): the tokens with the least attention join their most similar
        survivors.

        Args:
            hidden: (L, D) states of one video's span in front of the layer. attention: (L,) that the last prompt token
                pays them in the layer before, mean over heads.

        Returns:
            A map of L tokens to max(1, round(L * inner_retention)), survivors in their order.
        """
        if hidden.dim() != 2 or attention.shape != hidden.shape[:1]:
            raise ValueError(
                f"merge_inner takes (L, D) and (L,), got {tuple(hidden.shape)} and {tuple(attention.shape)}"
            )
        length = hidden.shape[0]
        keep = max(1, round(length * self.inner_retention))
        if keep == length:
            return Merge.identity(length, hidden.device)
        kept, dropped = split_by_rank(attention.float(), keep)
        joins = nearest_kept(hidden, kept, dropped)
        weigh = halving_weights if self.inner_merge == "halving" else mean_weights
        survivors, joiners = weigh(joins, keep)
        target, weight = kept.new_empty(length), torch.empty(length, device=hidden.device)
        target[kept], target[dropped] = torch.arange(keep, device=hidden.device), joins
        weight[kept], weight[dropped] = survivors, joiners
        return Merge(target, weight, kept)
