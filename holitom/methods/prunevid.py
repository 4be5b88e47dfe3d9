"""PruneVid: visual token pruning for efficient video LLMs (Huang et al., ACL Findings 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from holitom.edges import send
from holitom.merge import Merge
from holitom.methods.base import Attention
from holitom.methods.exact import ExactMethod
from holitom.ops.density_groups import Group, cluster_groups
from holitom.ops.ranking import top_indexes
from holitom.ops.scenes import refine_labels, runs
from holitom.ops.temporal import frame_means, scene_means, token_norms
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
        for name in ("cluster_ratio", "scene_ratio"):
            check_share(name, getattr(self, name))
        if not -1 <= self.tau <= 1:
            raise ValueError(f"tau is a cosine and must lie in [-1, 1], got {self.tau!r}")

    def scenes(self, features: Tensor) -> list[tuple[int, int]]:
        """The first and last frame of each scene of (T, N, D) features. Waits for the device."""
        frames = features.shape[0]
        centres = max(1, math.floor(frames * self.scene_ratio))
        found = cluster_groups(frame_means(features), [Group(frames, centres, NEIGHBOURS)], ascending=False)
        return runs(refine_labels(found.number.tolist()))

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
        """Merges static tokens over time, then clusters each list. Waits for the device twice: for the scenes, and for
        which positions are static. Lists are counted on the host and clustered together."""
        features, positions = video.features, video.positions
        spans = self.scenes(features)
        similarity, means = scene_means(features, spans)
        static = (similarity > self.tau).numpy()
        length = np.array([last - first + 1 for first, last in spans])
        moves = ~static.repeat(length, axis=0)  # (T, N)
        merged, moving = static.sum(1), moves.sum(1)
        sizes = [*map(int, merged), *map(int, moving)]  # of all lists: one for each scene, one for each frame
        starts = np.array([first for first, _ in spans])
        lists = [(size, 1) for size in sizes[: len(spans)]]
        lists += [(int(moving[first]), int(frames)) for first, frames in zip(starts, length, strict=True)]
        ratio = self.ratio(lists, video.frames * positions)
        counts = [clusters(size, ratio) for size in sizes]

        order = []  # lists in order of output
        for each, (first, last) in enumerate(spans):
            order += [each, *(len(spans) + frame for frame in range(first, last + 1))]
        begin = dict(zip(order, accumulate((counts[each] for each in order), initial=0), strict=False))
        outputs = np.concatenate([np.arange(begin[each], begin[each] + count) for each, count in enumerate(counts)])
        scene, place = static.nonzero()
        moment, at = moves.nonzero()
        tokens = np.concatenate([place + (starts + length // 2)[scene] * positions, moment * positions + at])
        lengths = np.concatenate([length[scene], np.ones_like(at)])
        number = (static.cumsum() - 1).reshape(static.shape).repeat(length, axis=0)
        points = np.where(moves, len(place) + (moves.cumsum() - 1).reshape(moves.shape), number)
        sent = (scene * positions + place, tokens[len(place) :], tokens, lengths, outputs, points)
        tensors = [torch.from_numpy(array.astype(np.int64, copy=False)) for array in sent]
        of_means, of_rows, token, among, output, point = send(tensors, features.device)
        groups = [Group(size, count, NEIGHBOURS) for size, count in zip(sizes, counts, strict=True)]
        halves = (means, of_means, groups[: len(spans)]), (features, of_rows, groups[len(spans) :])
        found = [
            cluster_groups(x.flatten(0, 1), [each for each in half if each.size], points=points, ascending=False)
            for x, points, half in halves
            if len(points)
        ]
        numbers = [found[0].number, *(each.number + len(found[0].centre) for each in found[1:])]
        centre = torch.cat([found[0].centre, *(each.centre + len(of_means) for each in found[1:])])
        anchor = torch.empty_like(output)
        anchor[output] = token[centre]
        weight = (torch.cat([each.share for each in found]) / among)[point].flatten()
        merge = Merge(output[torch.cat(numbers)][point].flatten(), weight, anchor)._knowing(video.frames * positions)
        return merge, token_norms(features).flatten() if self.exact else weight

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
