"""ToMe's rule: in every frame, the tokens at even places that are most like one at an odd place join it."""

from __future__ import annotations

import torch
from torch import Tensor


def falling_counts(layers: int, mean: int) -> list[int]:
    """How many tokens merge in each of ``layers`` layers: about ``mean``, from 1.5 times as many down to half."""
    first = int(1.5 * mean)
    step = (2 * mean - 2 * first) / max(1, layers - 1)
    return [int(first + step * layer) for layer in range(layers)]


def counts_of_total(layers: int, total: int) -> list[int]:
    """:func:`falling_counts` with the sum ``total``.

    The smallest mean whose sum is nearest is taken, searched upwards as long as it gets nearer; what is then left, or
    too much, is the first layer's, if that has so many.
    """
    best = falling_counts(layers, 0)
    for mean in range(1, total):
        found = falling_counts(layers, mean)
        if abs(sum(found) - total) >= abs(sum(best) - total) or found[0] + total < sum(found):
            break
        best = found
    return [best[0] + total - sum(best), *best[1:]]


def pair_tokens(metric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One step: which tokens of each frame join which, and the order of those that are left.

    Args:
        metric: (F, N, K), what is compared by cosine.
        count: tokens of each frame that join another; at most N // 2.

    Returns:
        (F, N) int64, the place of each token's output among the frame's N - count, and (F, N - count) int64, the token
        whose place each output takes: even tokens that are left in their order, then all odd ones in theirs. The first
        token joins another only when all even ones do.
    """
    frames, tokens = metric.shape[:2]
    even, odd = (tokens + 1) // 2, tokens // 2
    if not 0 <= count <= odd:
        raise ValueError(f"of {tokens} tokens 0..{odd} can join another, not {count}")
    unit = torch.nn.functional.normalize(metric if metric.dtype == torch.float64 else metric.float(), dim=-1)
    likeness = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    likeness[:, 0] = -torch.inf
    best, partner = likeness.max(-1)
    order = best.argsort(dim=1, descending=True, stable=True)
    joining, staying = order[:, :count], order[:, count:].sort(dim=1).values
    place = torch.arange(even - count, even - count + odd, device=metric.device)
    target = torch.empty(frames, tokens, dtype=torch.int64, device=metric.device)
    target[:, 1::2] = place
    of_even = torch.empty(frames, even, dtype=torch.int64, device=metric.device)
    of_even.scatter_(1, staying, torch.arange(even - count, device=metric.device).expand(frames, -1))
    of_even.scatter_(1, joining, partner.gather(1, joining) + even - count)
    target[:, ::2] = of_even
    anchor = torch.cat([2 * staying, torch.arange(1, tokens, 2, device=metric.device).expand(frames, -1)], 1)
    return target, anchor


def mean_by_size(target: Tensor, size: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """The share of each token in its output by how many patches it holds: (F, N), and the outputs' sizes (F, M)."""
    total = torch.zeros(len(size), outputs, dtype=size.dtype, device=size.device).scatter_add_(1, target, size)
    return size / total.gather(1, target), total
