"""Who matters most: stable rankings and the attention of one query."""

from __future__ import annotations

import torch
from torch import Tensor


def descending(scores: Tensor) -> Tensor:
    """(..., n) int64: the order of the last dimension from the largest score; of equals the lower index comes first.

    What is not a number comes last.
    """
    return scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argsort(
        dim=-1, descending=True, stable=True
    )


def top_indexes(scores: Tensor, count: int) -> Tensor:
    """The ``count`` largest along the last dimension, as ascending indexes; of equals the lower index.

    Args:
        scores: (..., n); not a number: least of all.
        count: at most n.

    Returns:
        (..., count) int64, ascending. No synchronisation.
    """
    return descending(scores)[..., :count].sort(dim=-1).values


def rank_descending(scores: Tensor) -> Tensor:
    """(..., n) int64: the place of each entry when sorted from the largest; of equals the lower index comes first."""
    order = descending(scores)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def keep_top(scores: Tensor, counts: Tensor) -> Tensor:
    """For each row, which entries are among its ``counts`` largest.

    Args:
        scores: (T, n) floating point; not a number: least of all.
        counts: (T,) int64, how many to keep in each row.

    Returns:
        (T, n) bool. No synchronisation.
    """
    return rank_descending(scores) < counts[:, None]


def query_attention(
    query: Tensor, key: Tensor, scale: float, valid: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Softmax attention of some queries over all keys, per head, with grouped key heads; O(queries * keys) memory.

    Args:
        query: (H, Q, d) floating point, Q queries of H heads.
        key: (G, L, d) floating point, L keys of G heads; G divides H.
        scale: factor on the logits, as a rule d ** -0.5.
        valid: (L,) or (Q, L) bool, the keys that count (not padding, not in the future); None: all.
        bias: (L,) float32, added to the logits of each key; None: nothing.

    Returns:
        (H, Q, L) float32, each row sums to 1.
    """
    groups, _, width = key.shape
    heads, queries, _ = query.shape
    logits = (query.reshape(groups, -1, width).float() @ key.float().transpose(-1, -2)) * scale
    logits = logits.view(heads, queries, -1)
    if bias is not None:
        logits = logits + bias
    if valid is not None:
        logits = logits.masked_fill(~valid, -torch.inf)
    return logits.softmax(-1)


def last_query_attention(
    query: Tensor, key: Tensor, scale: float, valid: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Attention of one query over all keys, mean over heads: (H, d) and (G, L, d) -> (L,) float32, sums to 1."""
    return query_attention(query[:, None], key, scale, valid, bias)[:, 0].mean(0)
