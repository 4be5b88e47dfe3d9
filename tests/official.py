"""What official codes do where the methods here do what the papers say: for golden tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.cdpruner import CDPruner
from holitom.methods.dycoke import DyCoke
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.holitom import HoliTom
from holitom.methods.sinks import SinkAware
from holitom.methods.vcast import VCast
from holitom.methods.visionzip import VisionZip
from holitom.ops.ranking import top_indexes
from holitom.ops.selection import dominant_contextual
from holitom.ops.similarity import static_links
from holitom.ops.sinks import sink_scores
from holitom.ops.trees import Forest
from holitom.tokens import VideoTokens


def doubled(merge: Merge) -> Merge:
    """Contextual tokens as sums of their target and the mean of those that joined."""
    return Merge(merge.target, torch.where(merge.weight < 1, 2 * merge.weight, merge.weight), merge.anchor)


@dataclass(frozen=True)
class OfficialVisionZip(VisionZip):
    """Contextual tokens are sums, of about double norm."""

    def merge_video(self, video: VideoTokens) -> Merge:
        return doubled(super().merge_video(video))


def visionzip_image(attention: Tensor, keys: Tensor, dominant: int, contextual: int) -> Merge:
    """VisionZip's original form, for images through a tower with a CLS token (CLIP), which always stays.

    attention: (T, H, N+1) what the CLS token pays, for each head, of T images. keys: (T, N+1, K).
    """
    scores = attention.float().sum(1)
    scores[:, 0] = torch.inf
    return doubled(dominant_contextual(scores, keys, dominant + 1, contextual))


@dataclass(frozen=True)
class OfficialDyCoke(DyCoke):
    """Reduced frames in order of similarity; the last group of four is not reduced again; an odd last frame is lost."""

    def references(self, frames: int) -> list[int]:
        earlier = [t - 1 if t % 2 else -1 for t in range(frames)]
        for t in range(0, frames - 4, 4):
            earlier[t + 2] = t
        return earlier

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        return super().own_count(frames, grid) - frames % 2 * grid[0] * grid[1]

    def merge_video(self, video: VideoTokens) -> Merge:
        positions, references = video.positions, self.references(video.frames)
        order, index = self.similarity(video.features).argsort(dim=1, stable=True), []
        for t in range(video.frames - video.frames % 2):
            count = self.reduced(video.frames, positions) if references[t] >= 0 else positions
            index.append(order[t, :count] + t * positions)
        return Merge.keep(torch.cat(index), video.frames * positions)


def decode_selection(
    attention: Tensor, start: int, visual: int, previous: Tensor | None, pruned: float = 0.8
) -> tuple[Tensor | None, Tensor]:
    """DyCoke's choice of cache entries for one generated token (section 3.3), which sessions do not apply.

    Where the new token's attention (H, L) to the video has turned since the previous step (cosine below 0.9, or the
    first step), later layers see the most attended visual entries and all others; else the whole cache.

    Returns the kept entries (M,) ascending, or None for the whole cache; and (visual,) the mean attention.
    """
    mean = attention.float().mean(0)
    video = mean[start : start + visual]
    turned = previous is None or float(torch.cosine_similarity(video, previous, dim=0)) < 0.9
    if not turned:
        return None, video
    kept = torch.ones(len(mean), dtype=torch.bool)
    kept[start : start + visual] = False
    kept[top_indexes(video, math.floor(visual * (1 - pruned))) + start] = True
    return kept.nonzero()[:, 0], video


@dataclass(frozen=True)
class OfficialVCast(VCast):
    """What flooring leaves goes to the frame with the largest fraction until it is full; one frame stays whole."""

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1] if frames == 1 else super().own_count(frames, grid)

    def hand_out(self, counts: Tensor, fractions: Tensor, positions: int, total: int) -> Tensor:
        left = total - int(counts.sum())
        for t in fractions.argsort(descending=True, stable=True).tolist():
            more = min(left, positions - int(counts[t]))
            counts[t] += more
            left -= more
        return counts


@dataclass(frozen=True)
class OfficialFlashVID(FlashVID):
    """Trees divided by their root's children alone; tokens selected again; one frame's selected tokens in clusters."""

    def pick(self, distance: Tensor, count: int) -> Tensor:
        if self.selection != "attn_div_v2" or not count:
            return super().pick(distance, count)
        rows = torch.arange(len(distance))
        picked = [distance.topk(min(2, distance.shape[1]), dim=1, largest=False).values[:, -1].argmax(1)]
        nearest = torch.full(distance.shape[:2], torch.inf)
        while len(picked) < count:
            nearest = nearest.minimum(distance[rows, picked[-1]])
            picked.append(nearest.argmax(1))
        return torch.stack(picked, 1)

    def pool(self, free: Tensor, spans: list[tuple[int, int]]) -> Tensor:
        alone = [first for first, last in spans if first == last]
        return free.index_fill(0, torch.tensor(alone, dtype=torch.int64), True)

    def divisor(self, forest: Forest) -> Tensor:
        return 1 + forest.children


# SToP (arXiv 2604.20937) in the units of one tower's attention --------------------------------------------------


@dataclass(frozen=True)
class InOfficialUnits(SinkAware):
    """Sinks lose ``mu_s`` in the attention's own units."""

    mu_s: float = 0.03
    gamma: float = 1.1

    def ranked(self, video: VideoTokens) -> tuple[Tensor, Tensor | None]:
        scores = video.require_scores("SToP")
        sinks = sink_scores(scores, self.gamma)
        return scores - self.mu_s * sinks, sinks


@dataclass(frozen=True)
class OfficialSinksHoliTom(InOfficialUnits, HoliTom):
    """What is static is tested against 0.8 whatever tau, and sinks lose 0.3 as centres with any ``mu_s``.

    ``contextual`` (D): so many of a frame's dynamic tokens go, without any that take their place.
    """

    mu_t: float = 0.07
    contextual: float = 0.0

    def links(self, features: Tensor, bonus: Tensor | None = None) -> Tensor:
        if bonus is None:
            return super().links(features)
        return static_links(features, 0.8, bonus / self.sink_static * self.mu_t)

    def merge_video(self, video: VideoTokens) -> Merge:
        merge, positions = super().merge_video(video), video.positions
        scores = self.ranked(video)[0].flatten()[merge.anchor]
        alone = torch.bincount(merge.edges()[1], minlength=merge.outputs) == 1
        frame, stays = merge.anchor // positions, torch.ones(merge.outputs, dtype=torch.bool)
        for t in range(video.frames):
            dynamic = (alone & (frame == t)).nonzero()[:, 0]
            best = top_indexes(scores[dynamic], round(len(dynamic) * (1 - self.contextual)))
            stays[dynamic] = False
            stays[dynamic[best]] = True
        number = torch.where(stays, stays.cumsum(0) - 1, -1)
        target = torch.where(merge.target >= 0, number[merge.target.clamp(min=0)], -1)
        return Merge(target, merge.weight, merge.anchor[stays], spans=merge.spans)


@dataclass(frozen=True)
class OfficialSinksFastVID(InOfficialUnits, FastVID):
    """Sinks lose 0.3 twice as targets in segments of several frames, and nothing where ``mu_s`` is 0."""

    def penalty(self, sinks: Tensor | None, frames: int) -> Tensor | None:
        usual = super().penalty(sinks, frames)
        return None if usual is None or not self.mu_s else usual * (2 if frames > 1 else 1)


@dataclass(frozen=True)
class OfficialSinksFlashVID(InOfficialUnits, FlashVID):
    """In official units."""


def official_sink_targets(kept: Tensor, sinks: Tensor, positions: int, count: int) -> Tensor:
    """The contextual targets of one frame: evenly spaced places in the list of what is not kept, each raised by one
    until it is none of the 20 positions with the largest sink scores (which are places in the frame, not in the list).
    Two of them may be one."""
    rest = torch.tensor([place for place in range(positions) if place not in kept.tolist()])
    shunned = set(sinks.argsort(descending=True, stable=True)[:20].tolist())
    step, found = max(1, len(rest) // count), []
    for place in range(0, count * step, step):
        while place in shunned:
            place += 1
        found.append(place)
    return rest[found]


@dataclass(frozen=True)
class OfficialCDPruner(CDPruner):
    """Compares CLIP's embeddings of image patches (T, N, C) and texts (M, C)."""

    image_embeds: Any = None
    text_embeds: Any = None

    def cosine(self, video: VideoTokens, norms: Tensor) -> Tensor:
        text = torch.nn.functional.normalize(self.text_embeds, dim=-1)
        return (torch.nn.functional.normalize(self.image_embeds, dim=-1) @ text.T).mean(-1)
