"""FrameFusion: similarity and importance for video token reduction (Fu et al., ICCV 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Attention, Method
from holitom.ops.ranking import top_indexes
from holitom.ops.similarity import row_norms
from holitom.tokens import SpanStates


@dataclass(frozen=True)
class FrameFusion(Method):
    """Inside the LLM, merges tokens like the same position's token before them, layer after layer, then prunes once.

    Paper: https://arxiv.org/abs/2501.01986. In front of each layer, from ``first`` on, every token whose cosine with
    the token before it at the same position of a frame is at least ``similarity`` merges into that one; runs become
    means. Once a layer merges less than ``merge_floor`` of the tokens, the next one prunes those that the last prompt
    token attends to least, so that the tokens summed over all layers come to ``cost`` of the full sum; merging stops
    short where that is reached before. Positions stay.

    The number of tokens depends on the content: every layer that merges waits for the device. The official code acts
    for the first time before the attention of layer 0, where a session cannot, and then between attention and MLP,
    where a session acts in front of the next layer; the budget counts the layers before ``first`` as spent. It has the
    depth 28 written into it, where here the model's depth counts; and it raises where merging has spent more than the
    budget, where here all but one token go. Newlines (published for LLaVA-Video as positions of their own) stay.

    Args:
        cost: the share of the visual tokens, summed over layers, that remains to be computed.
        similarity: the least cosine that merges; published: 0.6, depending on the model.
        merge_floor: the share of merged tokens below which merging ends.
        first: the first layer in front of which tokens merge. Official: 0.
        depth: the number of layers in the budget; None: the model's. Official: 28.
    """

    name: ClassVar[str] = "framefusion"
    paper: ClassVar[str] = "https://arxiv.org/abs/2501.01986"
    venue: ClassVar[str] = "ICCV 2025"
    looks_at: ClassVar[str] = "change, attention"
    attention: ClassVar[Attention] = "last"

    cost: float = 0.3
    similarity: float = 0.6
    merge_floor: float = 0.1
    first: int = 1
    depth: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cost <= 1:
            raise ValueError(f"cost is a share of the full computation and must lie in (0, 1], got {self.cost!r}")
        if not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity is a cosine and must lie in [-1, 1], got {self.similarity!r}")
        if not 0 <= self.merge_floor <= 1:
            raise ValueError(f"merge_floor is a share of tokens and must lie in [0, 1], got {self.merge_floor!r}")
        if self.first < 0:
            raise ValueError(f"first={self.first!r} is a layer's index and must be at least 0")
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"depth={self.depth!r} is a number of layers and must be at least 1")

    def layers(self, depth: int) -> tuple[int, ...]:
        """All from ``first`` on: merging ends where the content says.

        Raises:
            ValueError: when the model has no such layer.
        """
        if self.first >= depth:
            raise ValueError(f"first={self.first!r}, but the model has layers 0..{depth - 1}")
        return tuple(range(self.first, depth))

    def needed(self, merged: list[float], depth: int) -> float:
        """The share of the present tokens to drop now, for good, to meet the cost, after merging shares s_1..s_m.

        With P_i = (1 - s_1)...(1 - s_i), layers so far cost first + P_1 + ... + P_m of the full sum ``depth``.
        """
        product, spent = 1.0, float(self.first)
        for share in merged:
            product *= 1 - share
            spent += product
        left = depth - self.first - len(merged)
        if left < 1 or product <= 0:
            return 0.0
        stays = (depth * self.cost - spent) / (left * product)
        return 1 - min(1.0, max(0.0, stays))

    def merge_span(self, span: SpanStates) -> Merge:
        """Merges, prunes, or leaves the span as it is, as ``span.memory`` says. Waits for the device until done."""
        merged = cast("list[float]", span.memory.setdefault("merged", []))
        phase = span.memory.setdefault("phase", "merge")
        length, depth = len(span.hidden), self.depth or span.depth
        visual = (span.place >= 0).nonzero()[:, 0]
        if phase == "done" or not len(visual):
            return Merge.identity(length, span.hidden.device)
        wanted = self.needed(merged, depth)
        if phase == "prune":
            attention = span.require_attention("FrameFusion")
            span.memory["phase"] = "done"
            count = max(1, round(len(visual) * (1 - wanted)))
            kept = torch.ones(length, dtype=torch.bool, device=visual.device)
            kept.index_fill_(0, visual, False)
            kept[visual[top_indexes(attention[visual], count)]] = True
            return Merge.keep(kept.nonzero()[:, 0], length)

        order, alike = self.likeness(span, visual)
        joins = alike >= self.similarity
        share = int(joins.sum()) / len(visual)
        if share < wanted:
            merged.append(share)
            if share < self.merge_floor:
                span.memory["phase"] = "prune"
        else:
            joins = torch.zeros_like(joins)
            joins[alike.argsort(descending=True, stable=True)[: math.floor(wanted * len(visual))]] = True
            span.memory["phase"] = "done"
        return join_runs(order, joins & (alike > -2), length)

    @staticmethod
    def likeness(span: SpanStates, visual: Tensor) -> tuple[Tensor, Tensor]:
        """The visual tokens by position of the frame, then in order, and each one's cosine with the one before it.

        Returns:
            (v,) int64 places in the span; (v,) float32 cosines, -2 where a position of the frame begins.
        """
        kind = span.place[visual] % (span.grid[0] * span.grid[1])
        kind, order = kind.sort(stable=True)
        order = visual[order]
        norms = row_norms(span.hidden)
        alike = torch.full((len(order),), -2.0, dtype=torch.float32, device=visual.device)
        step = max(1, (1 << 19) // span.hidden.shape[1])
        for start in range(1, len(order), step):
            here = order[start : start + step]
            before = order[start - 1 : start - 1 + len(here)]
            dots = (span.hidden[here].float() * span.hidden[before].float()).sum(-1)
            alike[start : start + step] = dots / (norms[here] * norms[before]).clamp(min=1e-30)
        alike[1:][kind[1:] != kind[:-1]] = -2.0
        return order, alike


def join_runs(order: Tensor, joins: Tensor, length: int) -> Merge:
    """Merges every run of joining tokens, in ``order``, into the token before it: the mean of all. Others stay.

    Args:
        order: (v,) int64 distinct indexes of tokens in the span.
        joins: (v,) bool, which tokens merge into the one before them; the first does not.
        length: V, the tokens of the span.
    """
    places = torch.arange(len(order), device=order.device)
    head = torch.where(joins, 0, places).cummax(0).values
    anchor_of = torch.arange(length, device=order.device)
    anchor_of[order] = order[head]
    size = torch.bincount(anchor_of, minlength=length)
    anchor = (size > 0).nonzero()[:, 0]
    number = torch.zeros(length, dtype=torch.int64, device=order.device)
    number[anchor] = torch.arange(len(anchor), device=order.device)
    return Merge(number[anchor_of], 1 / size[anchor_of].float(), anchor)
