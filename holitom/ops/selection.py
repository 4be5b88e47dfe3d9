"""Dominant and contextual tokens: a few stay, the others join evenly spaced targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.ranking import top_indexes
from holitom.ops.temporal import dots_with


def dominant_contextual(
    scores: Tensor, keys: Tensor, dominant: int, contextual: int, avoid: Tensor | None = None
) -> Merge:
    """For each frame, the best-scoring tokens as they are, then the others merged into evenly spaced targets.

    Of the R tokens that are not dominant, each (R div contextual)-th is a target; every other one joins the target
    with the most similar key. A contextual token is the mean of its target and the mean of those that joined.
    Source: VisionZip (arXiv 2412.04467), section 3.

    Args:
        scores: (T, N) floating point.
        keys: (T, N, K) what is compared by cosine.
        dominant: tokens a frame that stay, at least 0.
        contextual: targets a frame, at least 0; both together from 1 to N.
        avoid: (N,) bool, positions that are targets only where a frame has no others left; None: none.

    Returns:
        A map of T*N tokens; for each frame the dominant tokens by position, then the contextual ones by the position
        of their targets. No synchronisation.
    """
    frames, positions = scores.shape
    kept = top_indexes(scores, dominant)
    if not contextual:
        first = torch.arange(frames, device=scores.device)[:, None] * positions
        return Merge.keep((kept + first).flatten(), frames * positions)
    return join_targets(kept, spaced_targets(kept, positions, contextual, avoid), keys)


def spaced_targets(kept: Tensor, positions: int, count: int, avoid: Tensor | None) -> Tensor:
    """Evenly spaced ones of the tokens of each frame that are neither kept nor avoided.

    Args:
        kept: (T, k) int64.
        positions: N.
        count: m, at most N - k.
        avoid: (N,) bool, or None.

    Returns:
        (T, m) int64, ascending. No synchronisation.
    """
    frames, device = len(kept), kept.device
    last = torch.zeros(frames, positions, dtype=torch.uint8, device=device)
    if avoid is not None:
        last += avoid.to(device)
    order = last.scatter_(1, kept, 2).argsort(dim=1, stable=True)
    step = ((last == 0).sum(1, keepdim=True) // count).clamp_(min=1)
    return order.gather(1, torch.arange(count, device=device) * step).sort(dim=1).values


def join_targets(kept: Tensor, targets: Tensor, keys: Tensor) -> Merge:
    """In each frame, tokens that are neither kept nor targets join the target with the most similar key.

    Args:
        kept: (T, k) int64, ascending.
        targets: (T, m) int64, ascending, m at least 1.
        keys: (T, N, K).
    """
    (frames, positions), (dominant, contextual) = keys.shape[:2], (kept.shape[1], targets.shape[1])
    device = keys.device
    is_kept = torch.zeros(frames, positions, dtype=torch.bool, device=device).scatter_(1, kept, True)
    own = F.normalize(keys.gather(1, targets[:, :, None].expand(-1, -1, keys.shape[2])).float(), dim=-1)
    joined = dots_with(keys, own).argmax(-1)  # a token's own norm does not change which target is nearest
    joined.scatter_(1, targets, torch.arange(contextual, device=device).expand(frames, -1))
    is_target = torch.zeros_like(is_kept).scatter_(1, targets, True)
    member = ~is_kept & ~is_target
    size = torch.zeros(frames, contextual, dtype=torch.float32, device=device)
    size = size.scatter_add_(1, joined, member.to(torch.float32)).gather(1, joined)
    half = 0.5 / size.clamp(min=1)
    weight = torch.where(is_target, 1 - 0.5 * (size > 0).to(torch.float32), half).masked_fill(is_kept, 1.0)

    target = torch.where(is_kept, is_kept.cumsum(1) - 1, dominant + joined)
    frame = torch.arange(frames, device=device)[:, None]
    anchor = torch.cat([kept, targets], 1) + frame * positions
    target = target + frame * (dominant + contextual)
    return Merge(target.flatten(), weight.flatten(), anchor.flatten())._knowing(frames * positions)
