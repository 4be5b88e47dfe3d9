"""Who matters most: stable rankings and the attention of one query."""

from __future__ import annotations

import torch
from torch import Tensor


def top_indexes(scores: Tensor, count: int) -> Tensor:
    """The ``count`` largest along the last dimension, as ascending indexes; of equals the lower index.

    Args:
        scores: (..., n). count: at most n.

    Returns:
        (..., count) int64, ascending. No synchronisation.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values


def rank_descending(scores: Tensor) -> Tensor:
    """(..., n) int64: the place of each entry when sorted from the largest; of equals the lower index comes first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def keep_top(scores: Tensor, counts: Tensor) -> Tensor:
    """For each row, which entries are among its ``counts`` largest.

    Args:
        scores: (T, n). counts: (T,) int64, how many to keep in each row.

    Returns:
        (T, n) bool. No synchronisation.
    """
    return rank_descending(scores) < counts[:, None]


def last_query_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Softmax attention of one query over all keys, mean over heads, with grouped key heads; O(keys) memory.

    Args:
        query: (H, d) one position's query heads. key: (G, L, d) key heads; H is a multiple of G.
        scale: factor on the logits, as a rule d ** -0.5.

    Returns:
        (L,) float32, sums to 1.
    """
    groups, length, width = key.shape
    logits = torch.einsum("ghd,gld->ghl", query.view(groups, -1, width).float(), key.float()) * scale
    return logits.softmax(-1).view(-1, length).mean(0)
