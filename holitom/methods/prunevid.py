"""PruneVid: visual token pruning for efficient video LLMs (Huang et al., ACL Findings 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Attention, check_layer, resolve_layer
from holitom.methods.exact import ExactMethod
from holitom.ops.density import DensityPeaks
from holitom.ops.ranking import top_indexes
from holitom.ops.scenes import refine_labels, runs
from holitom.ops.temporal import frame_means, static_similarity, token_norms
from holitom.tokens import SpanStates, VideoTokens, check_share

NEIGHBOURS = 7  # of the density estimate
SHORT = 14  # lists of at most so many tokens are not clustered


@dataclass(frozen=True)
class PruneVid(ExactMethod):
    """Averages what is static in each scene, clusters the rest, and inside the LLM keeps what the question looks at.

    Paper: https://arxiv.org/abs/2412.16117. Frame means are clustered (DPC) into scenes. A position whose mean cosine
    between all pairs of a scene's frames is above tau is static and averaged over the scene. The static tokens of a
    scene and the other tokens of each frame are lists; a list of n > 14 becomes floor(n * cluster_ratio) cluster means
    (DPC), in order of descending centre score. Output: for each scene its static list, then the lists of its frames.
    A merged token stands at its centre, a static one in the scene's middle frame.

    Inside the LLM each list keeps the tokens that any text token after the video attends to most, with any head.
    Lists are told apart by the frames of the tokens, so that this stage also follows other outer methods. The official
    code also removes the dropped tokens from the caches of the earlier layers; a session leaves those whole.

    Args:
        tau: a cosine; positions that are more alike over a scene are static.
        cluster_ratio: clusters for each token of a list.
        scene_ratio: scenes for each frame.
        retention: share of the visual tokens that enter the LLM, instead of ``cluster_ratio``: for each video the ratio
            that comes nearest (at least one token a list stays, and short lists stay whole).
        layer: the decoder layer in front of which tokens go: an index, a share of the depth (published: after layer 10
            of 32, which is in front of 11), or None for the outer stage alone.
        inner_retention: alpha, the share of each list that stays there: floor(alpha * n), of the video at least 1.
        exact: with a retention, keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are those
            with the largest norm that anchor nothing, excess outputs those at anchors with the smallest norm.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    name: ClassVar[str] = "prunevid"
    paper: ClassVar[str] = "https://arxiv.org/abs/2412.16117"
    venue: ClassVar[str] = "ACL Findings 2025"
    looks_at: ClassVar[str] = "change, features, attention from text"
    attention: ClassVar[Attention] = "text"

    tau: float = 0.8
    cluster_ratio: float = 0.5
    scene_ratio: float = 0.25
    retention: float | None = None
    layer: float | int | None = 11 / 32
    inner_retention: float = 0.4
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cluster_ratio", "scene_ratio", "inner_retention"):
            check_share(name, getattr(self, name))
        check_layer("layer", self.layer)
        if not -1 <= self.tau <= 1:
            raise ValueError(f"tau is a cosine and must lie in [-1, 1], got {self.tau!r}")

    def scenes(self, features: Tensor) -> list[tuple[int, int]]:
        """The first and last frame of each scene of (T, N, D) features. Waits for the device."""
        frames = features.shape[0]
        centres = max(1, math.floor(frames * self.scene_ratio))
        labels = DensityPeaks.of(frame_means(features), centres, NEIGHBOURS, ascending=False).cluster
        return runs(refine_labels(labels.tolist()))

    def ratio(self, lists: list[tuple[int, int]], total: int) -> float:
        """The cluster ratio in force for lists of (tokens, how many such lists) in a video of T*N tokens."""
        if self.retention is None:
            return self.cluster_ratio
        low, high = 0.0, 1.0
        for _ in range(40):  # counts grow with the ratio: bisection
            middle = (low + high) / 2
            if sum(clusters(n, middle) * times for n, times in lists) < total * self.retention:
                low = middle
            else:
                high = middle
        misses = {
            r: abs(sum(clusters(n, r) * times for n, times in lists) - total * self.retention) for r in (low, high)
        }
        return min(misses, key=misses.__getitem__)

    def choose(self, video: VideoTokens) -> tuple[Merge, Tensor]:
        """Merges static tokens over time, then clusters each list. Waits for the device at every scene."""
        features, positions, device = video.features, video.positions, video.features.device
        found = []
        for first, last in self.scenes(features):
            similarity, mean = static_similarity(features[first : last + 1])
            static, dynamic = (((similarity > self.tau) == where).nonzero()[:, 0] for where in (True, False))
            found.append((first, last, static, dynamic, mean[static].to(features.dtype)))
        lists = [(len(s), 1) for _, _, s, _, _ in found] + [(len(d), b - a + 1) for a, b, _, d, _ in found]
        ratio = self.ratio(lists, video.frames * positions)

        target = torch.full((video.frames, positions), -1, dtype=torch.int64, device=device)
        weight = torch.zeros(video.frames, positions, dtype=torch.float32, device=device)
        anchors: list[Tensor] = []
        base = 0
        for first, last, static, dynamic, mean in found:
            frames = last - first + 1
            cluster, centres = cluster_list(mean, ratio)
            target[first : last + 1, static] = base + cluster
            weight[first : last + 1, static] = (
                1 / (frames * torch.bincount(cluster, minlength=len(centres)))[cluster].float()
            )
            anchors.append(static[centres] + (first + frames // 2) * positions)
            base += len(centres)
            for frame in range(first, last + 1):
                cluster, centres = cluster_list(features[frame, dynamic], ratio)
                target[frame, dynamic] = base + cluster
                weight[frame, dynamic] = 1 / torch.bincount(cluster, minlength=len(centres))[cluster].float()
                anchors.append(dynamic[centres] + frame * positions)
                base += len(centres)
        merge = Merge(target.flatten(), weight.flatten(), torch.cat(anchors))
        return merge, token_norms(features).flatten() if self.exact else weight.flatten()

    def layers(self, depth: int) -> tuple[int, ...]:
        """The layer of the inner stage."""
        return () if self.layer is None else (resolve_layer("layer", self.layer, depth),)

    def merge_span(self, span: SpanStates) -> Merge:
        """Keeps the most attended tokens of each list, in order; newlines stay. Waits for the device."""
        attention = span.require_attention("PruneVid")
        frames = torch.where(span.place < 0, -1, span.place // (span.grid[0] * span.grid[1]))
        kept = []
        for first, last in runs(frames.tolist()):
            part = torch.arange(first, last + 1, device=frames.device)
            count = last - first + 1 if frames[first] < 0 else math.floor(self.inner_retention * len(part))
            kept.append(part[top_indexes(attention[part], count)])
        index = torch.cat(kept)
        return Merge.keep(index if len(index) else attention.argmax()[None], len(frames))


def clusters(size: int, ratio: float) -> int:
    """How many tokens a list of ``size`` becomes."""
    return size if size <= SHORT else max(1, math.floor(size * ratio))


def cluster_list(x: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Rows (n, D) -> the cluster (n,) of each row, and the centre of each cluster in descending order of score."""
    count = clusters(len(x), ratio)
    if count == len(x):
        own = torch.arange(len(x), device=x.device)
        return own, own
    peaks = DensityPeaks.of(x, count, NEIGHBOURS, ascending=False)
    return peaks.cluster, peaks.centres
