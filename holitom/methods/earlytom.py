"""EarlyTom: frames merge inside the vision tower, tokens are chosen behind it (arXiv 2605.30010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Attention, Need, check_layer, resolve_layer
from holitom.methods.holitom import HoliTom
from holitom.methods.sinks import SinkAware
from holitom.ops.earlytom import (
    Spans,
    cut_frames,
    effective_retention,
    frame_similarity,
    merge_frames,
    of_patches,
    select_tokens,
)
from holitom.tokens import SpanStates, TowerStates, VideoTokens, check_share


@dataclass(frozen=True)
class EarlyTom(SinkAware):
    """Merges alike frames at three blocks of the vision tower, and keeps of what is left the most attended tokens.

    Paper: https://arxiv.org/abs/2605.30010. As its official code does, the last of a segment's middle frames never
    counts. Its thresholds are tuned for each benchmark; here one setting holds. Different from there: tokens are chosen
    by the attention of the last used layer, as for every method here, not by the merged one of the last of the three
    blocks; and frames that merged stay in the tower's output, once for each, until tokens are chosen.

    Args:
        retention: share of the video's tokens that enter the LLM.
        similarity: a segment goes on while the moving mean of its frames' similarity to the first is not below it.
        max_frames: a segment has fewer frames than this.
        momentum: the weight of the newest frame in that mean.
        blocks: the blocks in front of which frames merge: indexes, or shares of the depth (published: behind 10, 21 and
            23 of 26).
        layer: HoliTom's stage inside the LLM; ``layer=None`` leaves it out.
        inner_retention: share of the tokens that stays there.
    """

    name: ClassVar[str] = "earlytom"
    paper: ClassVar[str] = "https://arxiv.org/abs/2605.30010"
    venue: ClassVar[str] = "CVPR 2026"
    looks_at: ClassVar[str] = "change, patch scores, attention"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    attention: ClassVar[Attention] = "last"

    retention: float = 0.10
    similarity: float = 0.6
    max_frames: int = 6
    momentum: float = 0.9
    blocks: tuple[float, ...] = (11 / 26, 22 / 26, 24 / 26)
    layer: float | int | None = 18 / 28
    inner_retention: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("retention", self.retention)
        for name in ("similarity", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")
        if self.max_frames < 2:
            raise ValueError(f"max_frames must be at least 2, got {self.max_frames}")
        for block in self.blocks:
            check_layer("blocks", block)

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """The blocks of ``blocks``, each once; in towers of a few blocks several shares are the same one, or none.

        Raises:
            ValueError: for an index that the tower does not have.
        """
        found = {
            resolve_layer("blocks", block, depth) if isinstance(block, int) else min(round(block * depth), depth - 1)
            for block in self.blocks
        }
        return tuple(sorted(found - {0}))

    def merge_tower(self, states: TowerStates) -> Merge:
        """See :meth:`Method.merge_tower`; the map's spans are the segments, in frames of the video."""
        frames, patches = states.hidden.shape[:2]
        device = states.hidden.device
        merged = states.merged or Merge.identity(frames * patches, device)
        kept = _frames_of(merged, frames)
        similarity = frame_similarity(states.hidden[kept.to(device)])
        spans = cut_frames(similarity, self.similarity, self.max_frames, self.momentum)
        merge = merge_frames(similarity, spans)
        left = kept[merge.anchor]
        if states.layer == self.tower_layers(states.depth)[-1]:
            again = frame_similarity(states.hidden[left.to(device)])
            spans = cut_frames(again, self.similarity, self.max_frames, self.momentum)
            first = [0, *(int(left[begin]) for begin, _ in spans[1:])]
            spans = list(zip(first, [begin - 1 for begin in [*first[1:], frames]], strict=True))
        whole = merged.compose(of_patches(merge, patches).to(device))
        return Merge(whole.target, whole.weight, whole.anchor, spans=tuple(spans))

    def merge_video(self, video: VideoTokens) -> Merge:
        """Of the frames that are left in the tower, the most attended tokens; all frames where none merged there."""
        scores, _ = self.ranked(video)
        kept, spans = torch.arange(video.frames, device="cpu"), Spans()
        if video.tower is not None and video.tower.spans is not None:
            kept, spans = _frames_of(video.tower, video.frames), list(video.tower.spans)
        else:
            spans = cut_frames(frame_similarity(video.features), self.similarity, self.max_frames, self.momentum)
        place = {frame: number for number, frame in enumerate(kept.tolist())}
        inside = [[place[frame] for frame in range(first, last + 1) if frame in place] for first, last in spans]
        share = effective_retention(self.retention, video.frames, len(kept), video.positions)
        kept = kept.to(scores.device)
        index = select_tokens(scores[kept], [(part[0], part[-1]) for part in inside], share)
        flat: Tensor = kept[index // video.positions] * video.positions + index % video.positions
        merge = Merge.keep(flat, video.frames * video.positions)
        return Merge(merge.target, merge.weight, merge.anchor, spans=tuple(spans))

    def merge_span(self, span: SpanStates) -> Merge:
        """HoliTom's inner stage."""
        return HoliTom(layer=self.layer, inner_retention=self.inner_retention).merge_span(span)


def _frames_of(merge: Merge, frames: int) -> Tensor:
    """(F,) int64 on the CPU: the frames of T in which rows of a map of T*P patches stand."""
    found: Tensor = torch.unique(merge.anchor.cpu() // (merge.inputs // frames))
    return found
