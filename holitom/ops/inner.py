"""Merging inside the LLM: the tokens that matter least join their most similar survivors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.similarity import row_chunk

Weigh = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(the survivor that each token joins, the number of survivors) -> the weights of survivors, and of joining tokens."""


def split_by_rank(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Splits positions (L,) into the ``keep`` with the largest scores and the rest, both as ascending int64 indexes.

    Of equal scores the lower index stays. No synchronisation.
    """
    order = scores.argsort(descending=True, stable=True)
    return order[:keep].sort().values, order[keep:].sort().values


def nearest_kept(hidden: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
    """For each dropped token the kept one with the largest cosine similarity, earlier or later in the sequence.

    Args:
        hidden: (L, D) floating point.
        kept: (k,) int64, positions in the sequence of those that stay.
        dropped: (d,) int64, positions of the others.

    Returns:
        (d,) int64, positions in ``kept``; of equals the first. Computed in float32, in chunks of dropped tokens.
    """
    towards = torch.nn.functional.normalize(hidden[kept].float(), dim=-1).T
    nearest = torch.empty_like(dropped)
    step = row_chunk(max(kept.numel(), 1), hidden.device)
    for start in range(0, len(dropped), step):
        part = slice(start, start + step)
        nearest[part] = (hidden[dropped[part]].float() @ towards).argmax(
            -1
        )  # a row's own norm does not move its argmax
    return nearest


def halving_weights(joins: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The weights of averaging tokens into survivors one after the other, h <- (h + h_i) / 2, in closed form.

    With members i_1 < ... < i_m a survivor ends as h * 2^-m + sum over j of h_(i_j) * 2^(j-1-m).

    Args:
        joins: (d,) int64, the survivor (0..kept-1) that each token joins, in order of joining.
        kept: the number of survivors.

    Returns:
        (kept,) float32 weights of the survivors, (d,) float32 weights of the joining tokens.
    """
    members = torch.zeros(kept, dtype=torch.int64, device=joins.device).index_add_(0, joins, torch.ones_like(joins))
    order = joins.argsort(stable=True)
    first = members.cumsum(0) - members
    place = torch.empty_like(joins)
    place[order] = torch.arange(len(joins), device=joins.device) - first[joins[order]]
    return torch.exp2(-members.float()), torch.exp2((place - members[joins]).float())


def mean_weights(joins: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The weights of the plain mean of a survivor and all that join it; arguments and shapes as in halving_weights."""
    members = torch.ones(kept, dtype=torch.float32, device=joins.device).index_add_(
        0, joins, torch.ones(len(joins), dtype=torch.float32, device=joins.device)
    )
    return 1 / members, 1 / members[joins]


def join_survivors(hidden: Tensor, scores: Tensor, keep: int, weigh: Weigh = mean_weights) -> Merge:
    """The map by which the tokens with the lowest scores join their most similar survivors, who stay in their order.

    Args:
        hidden: (L, D) floating point.
        scores: (L,), of equal ones the lower index stays.
        keep: the number of survivors, from 1 to L.
        weigh: :func:`mean_weights` or :func:`halving_weights`.
    """
    length = len(scores)
    if keep == length:
        return Merge.identity(length, hidden.device)
    kept, dropped = split_by_rank(scores, keep)
    joins = nearest_kept(hidden, kept, dropped)
    survivors, joiners = weigh(joins, keep)
    target, weight = kept.new_empty(length), torch.empty(length, dtype=torch.float32, device=hidden.device)
    target[kept], target[dropped] = torch.arange(keep, device=hidden.device), joins
    weight[kept], weight[dropped] = survivors, joiners
    return Merge(target, weight, kept)._knowing(length)
