"""FastVID: dynamic density pruning for fast video LLMs (Shen et al., NeurIPS 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from holitom.edges import send
from holitom.merge import Merge
from holitom.methods.base import Need
from holitom.methods.exact import ExactMethod
from holitom.methods.sinks import SinkAware
from holitom.ops.density_groups import Group, cluster_groups
from holitom.ops.pooling import Anchor, count_edges, nearest_targets, pooled_weights
from holitom.ops.ranking import descending
from holitom.ops.temporal import consecutive_cosine, frame_means, lowest_cuts, spans_of_cuts
from holitom.tokens import VideoTokens

NEIGHBOURS = 4  # of the density estimate


@dataclass(frozen=True)
class FastVID(SinkAware, ExactMethod):
    """Keeps salient tokens, and merges the rest of each scene into density peaks of evenly spaced anchor frames.

    Paper: https://arxiv.org/abs/2503.11187. A video is cut between frames whose vectors are less alike than tau, and
    at least into ``segments`` segments. Of R = floor(N * retention) tokens a frame (at least 1) the share
    ``context`` are context tokens: in every ``interval``-th frame, counted back from the segment's last, the densest
    spread-out tokens (DPC) are targets, and every other token of the segment joins one target of each anchor frame. A
    target with c tokens becomes v * target + (1 - v) * their mean, v = max(1 / (c + 1), beta). Outputs by position.

    Tokens feed several anchors, so the map has up to N * n * n / interval edges for a segment of n frames.

    Args:
        retention: share of the visual tokens that enter the LLM.
        segments: the fewest segments of a video.
        tau: a cosine; a video is cut where neighbouring frames are less alike.
        context: d, the share of context tokens.
        interval: p, frames from one anchor frame to the next.
        beta: the least weight of a target.
        variant: ``"onevision"`` (official LLaVA-OneVision): counts for each frame, which lose remainders, so that
            slightly fewer than T * R tokens remain. ``"video"`` (official LLaVA-Video): counts for each segment, T * R
            tokens; a target does not join its own frame's targets. The official Qwen variant is not here.
        scenes: what cuts are found in: the mean of a frame's ``"features"``, or the ``"embeddings"`` that the
            attention-pooling head of SigLIP gives. Published: the latter, which the transformers models do without.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are the best-scored ones
            that anchor nothing, excess outputs are those with the lowest-scored anchors.

    The published scores are the weights of SigLIP's attention-pooling head; what a session gives are those of the
    model's adapter. Official code fails on fewer frames than segments or no context tokens; here both are fine.
    """

    name: ClassVar[str] = "fastvid"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.11187"
    venue: ClassVar[str] = "NeurIPS 2025"
    looks_at: ClassVar[str] = "patch scores, features"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})

    retention: float = 0.10
    segments: int = 8
    tau: float = 0.9
    context: float = 0.4
    interval: int = 4
    beta: float = 0.6
    variant: Literal["onevision", "video"] = "onevision"
    scenes: Literal["features", "embeddings"] = "features"
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.tau <= 1:
            raise ValueError(f"tau is a cosine and must lie in [-1, 1], got {self.tau!r}")
        if self.segments < 1 or self.interval < 1:
            raise ValueError(f"segments={self.segments!r} and interval={self.interval!r} must be at least 1")
        for name, value in (("context", self.context), ("beta", self.beta)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share and must lie in [0, 1], got {value!r}")
        if self.scenes == "embeddings":
            object.__setattr__(self, "needs", frozenset({"scores", "frame_embeddings"}))

    def own_count(self, frames: int, grid: tuple[int, int]) -> int | None:
        """T * R for the variant "video"; otherwise it depends on the content."""
        size = max(1, math.floor(grid[0] * grid[1] * self.retention))
        return frames * size if self.variant == "video" else None

    def cut(self, video: VideoTokens) -> list[tuple[int, int]]:
        """The first and last frame of each segment. Waits for the device.

        Raises:
            ValueError: when the video has no frame embeddings.
        """
        vectors = video.frame_embeddings if self.scenes == "embeddings" else frame_means(video.features)
        if vectors is None:
            raise ValueError(
                "FastVID cuts a video by the vision tower's frame embeddings, but this one has none: pass "
                "VideoTokens(..., frame_embeddings=(T, E)), or FastVID(scenes='features')"
            )
        alike = consecutive_cosine(vectors)
        return spans_of_cuts((alike < self.tau) | lowest_cuts(alike, self.segments - 1))

    def _counts(
        self, spans: list[tuple[int, int]], positions: int
    ) -> tuple[list[int], list[tuple[int, int, list[Anchor]]]]:
        """How many salient tokens each frame keeps; for each pool (first frame, last frame) its anchors."""
        size = max(1, math.floor(positions * self.retention))
        salient: list[int] = []
        pools: list[tuple[int, int, list[Anchor]]] = []
        for first, last in spans:
            frames = last - first + 1
            anchored = list(range(last, first - 1, -self.interval))  # nearest the end first
            if self.variant == "video":
                shares, anchors = _share_out(size * frames, self.context, anchored, frames, positions)
                salient += shares
            else:
                targets = math.floor(size * self.context)
                salient += [size - targets] * frames
                each = targets if frames == 1 else math.floor(targets * frames / len(anchored))
                anchors = [Anchor(t, each) for t in anchored]
                if each == targets:  # as many as one frame's: every anchor keeps to its own frame
                    pools += [(anchor.frame, anchor.frame, [anchor]) for anchor in anchors if each]
                    continue
                anchors = [Anchor(a.frame, min(a.size, positions - salient[a.frame])) for a in anchors]
            pools.append((first, last, [anchor for anchor in anchors if anchor.size]))
        return salient, [pool for pool in pools if pool[2]]

    def choose(self, video: VideoTokens) -> tuple[Merge, Tensor]:
        """Keeps the salient tokens and merges the others into the targets.

        Raises:
            ValueError: when the video has no scores or no frame embeddings where they are needed.
        """
        scores, sinks = self.ranked(video)
        features, positions, device = video.features, video.positions, video.features.device
        salient, pools = self._counts(self.cut(video), positions)
        anchors = [(anchor, last - first + 1) for first, last, anchored in pools for anchor in anchored]
        sizes = [anchor.size for anchor, _ in anchors]
        outputs = sum(salient)

        on_host = count_edges(np.array(salient), positions, pools)
        stays, leaves, first, near, edge_pair, edge_free, base, at_home = send(on_host, device)

        ranking = (descending(scores) + first).flatten()
        kept, free = ranking[stays].sort().values, ranking[leaves].sort().values
        source, anchor, weight = [kept], kept, [scores.new_ones(outputs)]
        output = [torch.arange(outputs, device=device)]
        if anchors:
            points = free[near]
            groups = [Group(positions - salient[each.frame], each.size, NEIGHBOURS) for each, _ in anchors]
            cost = self._costs(sinks, [length for _, length in anchors], groups, points % positions)
            targets = points[cluster_groups(features.flatten(0, 1)[points], groups, cost, ascending=False).centre]
            joined = nearest_targets(features, targets, pools, sizes)
            joining = free[edge_free]
            leads_to = joined[edge_pair, joining % positions] + base
            if self.variant == "video":  # a target does not join its own frame's targets
                is_target = torch.zeros(scores.numel(), dtype=torch.int64, device=device).index_fill_(0, targets, 1)
                members = (is_target[joining] * at_home).argsort(stable=True)[: len(joining) - sum(sizes)]
                joining, leads_to = joining[members], leads_to[members]
            own, given = pooled_weights(leads_to, sum(sizes), self.beta)
            themselves = torch.arange(outputs, outputs + len(targets), device=device)
            source, anchor = [kept, joining, targets], torch.cat([kept, targets])
            output, weight = [*output, leads_to + outputs, themselves], [*weight, given, own]
        anchor, order = anchor.sort()
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=device)
        edges = (torch.cat(source), place[torch.cat(output)], torch.cat(weight))
        covered = sum(positions - salient[t] for a, b, _ in pools for t in range(a, b + 1))
        return Merge.from_edges(*edges, anchor, scores.numel(), outputs + covered), scores.flatten()

    def _costs(self, sinks: Tensor | None, lengths: list[int], groups: list[Group], place: Tensor) -> Tensor | None:
        """(K,) what each point of the anchors' frames loses, by the number of frames of its pool, or None."""
        if sinks is None:
            return None
        costs = [self.penalty(sinks, length) for length in lengths]
        sizes = torch.tensor([group.size for group in groups], device="cpu")
        which = torch.repeat_interleave(torch.arange(len(sizes), device="cpu"), sizes)
        which = which.to(place.device, non_blocking=True)
        return torch.stack([torch.zeros_like(sinks) if cost is None else cost for cost in costs])[which, place]

    def penalty(self, sinks: Tensor | None, frames: int) -> Tensor | None:
        """(N,) what positions lose of their density-peak scores, in a pool of so many frames."""
        return None if sinks is None else self.sink_peaks * sinks


def _share_out(
    total: int, context: float, anchored: list[int], frames: int, positions: int
) -> tuple[list[int], list[Anchor]]:
    """Salient tokens of each frame and targets of each anchor of a segment, ``total`` together (official LLaVA-Video).

    Remainders go to the first frames and to the first of ``anchored``. Where a frame would have to give more tokens
    than it has, fewer are context tokens.
    """
    targets = math.floor(total * context)
    while True:
        quotient, more = divmod(total - targets, frames)
        salient = [quotient + (i < more) for i in range(frames)]
        quotient, more = divmod(targets, len(anchored))
        anchors = [Anchor(t, quotient + (i < more)) for i, t in enumerate(anchored)]
        first = anchored[0] - frames + 1
        excess = sum(max(0, a.size + salient[a.frame - first] - positions) for a in anchors)
        if not excess:
            return salient, anchors
        targets -= excess
