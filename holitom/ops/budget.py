"""Exact counts: the one rule by which every method reaches a given number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.ranking import descending


def keep_exactly(kept: Tensor | None, scores: Tensor, count: int) -> Tensor:
    """Changes a selection as little as possible so that it has ``count`` members.

    Too many: those with the lowest scores go. Too few: the dropped with the highest scores come back. Of equal scores
    the lower index is preferred.

    Args:
        kept: (S,) bool, what the method keeps; None: nothing.
        scores: (S,), larger is more worth keeping; not a number: least of all.
        count: at most S.

    Returns:
        (count,) int64 ascending. No synchronisation.
    """
    order = descending(scores)
    if kept is not None:
        order = order[kept[order].byte().argsort(descending=True, stable=True)]
    return order[:count].sort().values


def fit_count(merge: Merge, scores: Tensor, count: int) -> Merge:
    """:func:`keep_exactly` for a map that merges: the same number of outputs for every content.

    Too many outputs: those whose anchors have the lowest scores go, with all their sources. Too few: the sources with
    the highest scores that anchor nothing leave their outputs and become outputs of their own; what is left of an
    output is rescaled to its former sum. The outputs come in the order of their anchors. All S tokens: the identity.

    Args:
        merge: a map of S sources.
        scores: (S,), larger is more worth a place of its own; not a number: least of all.
        count: at most S.
    """
    if count == merge.inputs:
        return Merge.identity(count, merge.anchor.device)
    source, output, weight = merge.edges()
    anchor = merge.anchor
    if merge.outputs > count:
        stays = torch.zeros(merge.outputs, dtype=torch.bool, device=anchor.device)
        stays[descending(scores[anchor])[:count]] = True
        number = torch.where(stays, stays.cumsum(0) - 1, -1)
        mine = stays[output]
        source, output, weight, anchor = source[mine], number[output[mine]], weight[mine], anchor[stays]
    elif merge.outputs < count:
        order = descending(scores)
        is_anchor = torch.zeros(merge.inputs, dtype=torch.bool, device=anchor.device).index_fill_(0, anchor, True)
        freed = order[is_anchor[order].byte().argsort(stable=True)][: count - merge.outputs]
        alone = torch.zeros(merge.inputs, dtype=torch.bool, device=anchor.device)
        alone.index_fill_(0, freed, True)
        mine = ~alone[source]
        before = weight.new_zeros(merge.outputs).index_add_(0, output, weight)
        source, output, weight = source[mine], output[mine], weight[mine]
        after = weight.new_zeros(merge.outputs).index_add_(0, output, weight)
        weight = weight * (before / after.clamp(min=torch.finfo(torch.float32).tiny))[output]
        source = torch.cat([source, freed])
        output = torch.cat([output, torch.arange(merge.outputs, count, device=anchor.device)])
        weight, anchor = torch.cat([weight, weight.new_ones(len(freed))]), torch.cat([anchor, freed])
    order = anchor.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return Merge.from_edges(source, place[output], weight, anchor[order], merge.inputs)


def spread_scores(count: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) float32 scores whose best k lie evenly over 0..count-1, for every k (multiples of the golden ratio)."""
    steps = torch.arange(count, dtype=torch.float64, device=device) * 0.6180339887498949
    return (1 - steps.frac()).to(torch.float32)
