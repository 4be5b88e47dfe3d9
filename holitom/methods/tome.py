"""ToMe: in every block of the vision tower, patches of a frame that are most alike merge (arXiv 2210.09461)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from holitom.merge import Merge
from holitom.methods.base import Method, Need
from holitom.ops.tome import counts_of_total, mean_by_size, pair_tokens
from holitom.tokens import TowerStates, check_share


@dataclass(frozen=True)
class ToMe(Method):
    """Merges within each frame, a few patches in front of every block but the first, by the keys of the block before.

    Paper: https://arxiv.org/abs/2210.09461, as wrapped for video by EarlyTom's authors: the number falls from block to
    block (slope -0.5), outputs are means weighed by the patches they hold, attention is not weighed. Different from
    there: patches merge in front of a block and not between its attention and its MLP, even and odd places are counted
    among the rows in the order of the frame, behind the tower every patch has its row's state again, and behind a block
    without attention (LFM3-VL's convolutions) states are compared.

    Args:
        merged: the share of a frame's patches that are merged away at the end, in (0, 1); published: 608 of 729.
    """

    name: ClassVar[str] = "tome"
    paper: ClassVar[str] = "https://arxiv.org/abs/2210.09461"
    venue: ClassVar[str] = "ICLR 2023"
    looks_at: ClassVar[str] = "patch keys"
    tower_needs: ClassVar[frozenset[Need]] = frozenset({"keys"})

    merged: float = 608 / 729

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("merged", self.merged)
        if self.merged == 1:
            raise ValueError("merged must be below 1: some patches have to be left")

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """All but the first."""
        return tuple(range(1, depth))

    def merge_tower(self, states: TowerStates) -> Merge:
        """See :meth:`Method.merge_tower`."""
        frames, total = states.hidden.shape[:2]
        compared = states.hidden if states.keys is None else states.keys
        before = states.merged or Merge.identity(frames * total, states.hidden.device)
        tokens = before.outputs // frames  # as many in each frame, in the order of their anchors
        step = states.layer - 1
        count = counts_of_total(states.depth - 1, round(self.merged * total))[step]
        target, anchor = pair_tokens(
            before.gather(compared.flatten(0, 1)).view(frames, tokens, -1), min(count, tokens // 2)
        )
        size = torch.bincount(before.target, minlength=before.outputs).view(frames, tokens)
        order = anchor.argsort(dim=1)  # rows by their places again
        rank = order.argsort(dim=1)
        target, anchor = rank.gather(1, target), anchor.gather(1, order)
        share, _ = mean_by_size(target, size.float(), anchor.shape[1])
        start = torch.arange(frames, device=target.device)[:, None]
        then = Merge(
            (target + start * anchor.shape[1]).flatten(),
            share.flatten(),
            (anchor + start * tokens).flatten(),
        )
        return before.compose(then)
