"""DyCoke: dynamic compression of tokens for fast video LLMs (Tao et al., CVPR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.budget import keep_exactly
from holitom.ops.ranking import rank_descending, top_indexes
from holitom.ops.temporal import cosine_of_pairs
from holitom.tokens import VideoTokens, check_share, exact_count


@dataclass(frozen=True)
class DyCoke(Method):
    """In groups of four frames, drops the tokens that an earlier frame of the group already shows.

    Paper: https://arxiv.org/abs/2411.15024, its temporal merging (which prunes). Frames t = 0, 2, 4, ... stay whole
    and frame t+1 keeps the q = floor((1 - k) * N) tokens that are least similar to frame t; then, for t = 0, 4, 8, ...,
    frame t+2 keeps the q tokens that are least similar to frame t. For long videos about 1/4 + 3/4 * (1 - k) remain.

    The paper's second half, a smaller KV cache while decoding, is :func:`decode_selection`; sessions do not apply it:
    it deletes nothing and needs another selection in front of every generated token.

    The official code orders the tokens of a reduced frame by similarity, never reduces frame t+2 of the last group of
    four, drops an odd last frame and fails for four frames or fewer. Here tokens stay in order, the last group is a
    group like any other and a frame without a partner stays whole. ``parity=True`` restores all of that.

    Args:
        k: share of a reduced frame that goes, in [0, 1). The paper's experiments: 0.7.
        retention: share of the visual tokens that enter the LLM, instead of ``k``: q becomes what comes nearest.
        parity: the official behaviour, see above.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are the dropped ones that
            are least similar to their reference, excess ones are the most similar (those of whole frames go last).

    Raises:
        ValueError: naming the parameter that is out of range; from :meth:`merge_video` and :meth:`token_count`, when
            the retention is out of reach because the reference frames alone are more, or parity meets too few frames.
    """

    name: ClassVar[str] = "dycoke"
    paper: ClassVar[str] = "https://arxiv.org/abs/2411.15024"
    exact_count: ClassVar[bool] = True

    k: float = 0.7
    retention: float | None = None
    parity: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.k < 1:
            raise ValueError(f"k is the share of a reduced frame that goes and must lie in [0, 1), got {self.k!r}")
        if self.retention is not None:
            check_share("retention", self.retention)
        if self.exact and (self.retention is None or self.parity):
            raise ValueError("exact=True needs a retention and excludes parity=True: DyCoke(retention=0.3, exact=True)")

    def references(self, frames: int) -> list[int]:
        """For each frame, the earlier frame it is compared with; -1: it stays whole; -2: it goes (parity alone).

        Raises:
            ValueError: in parity mode with four frames or fewer.
        """
        if not self.parity:
            return [-1 if t % 4 == 0 else t - 1 if t % 2 else t - 2 for t in range(frames)]
        if frames < 5:
            raise ValueError(f"DyCoke's official code fails on {frames} frames, it needs 5: leave parity out")
        earlier = [t - 1 if t % 2 else -1 for t in range(frames)]
        for t in range(0, frames - 4, 4):
            earlier[t + 2] = t
        if frames % 2:
            earlier[-1] = -2
        return earlier

    def reduced(self, frames: int, positions: int) -> int:
        """q, the tokens that stay of a reduced frame of N positions.

        Raises:
            ValueError: when no q comes down to the retention.
        """
        if self.retention is None:
            return math.floor((1 - self.k) * positions)
        references = self.references(frames)
        whole, parts = references.count(-1), sum(earlier >= 0 for earlier in references)
        wanted = exact_count(frames, (positions, 1), self.retention) - whole * positions
        if not self.exact and wanted < 0:
            raise ValueError(
                f"DyCoke keeps {whole} of {frames} frames whole and cannot come down to retention={self.retention!r}: "
                f"give at least {whole / frames:.3f}, or exact=True"
            )
        return min(positions, max(0, round(wanted / parts))) if parts else 0

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """The number of tokens that stay, a function of the grid."""
        positions = grid[0] * grid[1]
        if self.exact and self.retention is not None:
            return exact_count(frames, grid, self.retention)
        references = self.references(frames)
        parts = sum(earlier >= 0 for earlier in references)
        return references.count(-1) * positions + parts * self.reduced(frames, positions)

    def merge_video(self, video: VideoTokens) -> Merge:
        """Drops what the reference frames already show. No synchronisation."""
        frames, positions, device = video.frames, video.positions, video.features.device
        references = self.references(frames)
        parts = [t for t in range(frames) if references[t] >= 0]
        similarity = torch.full((frames, positions), -2.0, device=device)  # whole frames: like nothing
        for t in parts:
            similarity[t] = cosine_of_pairs(video.features[references[t]][None], video.features[t][None])[0]
        size = self.reduced(frames, positions)
        if self.parity:
            order = similarity.argsort(dim=1, stable=True)
            places = [order[t, :size] if references[t] >= 0 else order[t] for t in range(frames) if references[t] > -2]
            first = [t * positions for t in range(frames) if references[t] > -2]
            index = torch.cat([place + start for place, start in zip(places, first, strict=True)])
            return Merge.keep(index, frames * positions)
        if self.exact:
            limits = torch.tensor([size if earlier >= 0 else positions for earlier in references])
            limit = limits.to(device, non_blocking=True)
            kept = rank_descending(-similarity) < limit[:, None]
            index = keep_exactly(kept.flatten(), -similarity.flatten(), self.token_count(frames, video.grid))
            return Merge.keep(index, frames * positions)
        whole = torch.arange(positions, device=device)
        least = top_indexes(-similarity, size)
        stays = [t * positions + (least[t] if references[t] >= 0 else whole) for t in range(frames)]
        return Merge.keep(torch.cat(stays), frames * positions)


def decode_selection(
    attention: Tensor, start: int, visual: int, previous: Tensor | None, pruned: float = 0.8
) -> tuple[Tensor | None, Tensor]:
    """DyCoke's choice of cache entries for one generated token (section 3.3; official default p = 0.8, README 0.7).

    Where the new token's attention to the video has turned since the previous step (cosine below 0.9, or the first
    step), the layers from l = 3 on see the most attended visual entries and all others; else the whole cache. The
    official code restores the whole cache there, where the paper suggests to keep the previous choice.

    Args:
        attention: (H, L) of the new token in layer l - 1, for each head over all cache entries.
        start: the first visual entry. visual: their number (the official code takes one less than the video has).
        previous: the second result of the step before, or None. pruned: p, share of the visual entries left out.

    Returns:
        (kept entries (M,) int64 ascending, or None for the whole cache; (visual,) the mean attention).
    """
    mean = attention.float().mean(0)
    video = mean[start : start + visual]
    turned = previous is None or float(torch.cosine_similarity(video, previous, dim=0)) < 0.9
    if not turned:
        return None, video
    kept = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    kept[start : start + visual] = False
    kept[top_indexes(video, math.floor(visual * (1 - pruned))) + start] = True
    return kept.nonzero()[:, 0], video
