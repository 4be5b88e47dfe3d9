"""Dominant and contextual tokens: a few stay, the others join evenly spaced targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.ranking import descending
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
    order = descending(scores)
    kept = order[:, :dominant].sort(dim=1).values
    if not contextual:
        first = torch.arange(frames, device=scores.device)[:, None] * positions
        return Merge.keep((kept + first).flatten(), frames * positions)
    if avoid is None:
        rest = order[:, dominant:].sort(dim=1).values
        step = max(1, rest.shape[1] // contextual)
        return join_targets(kept, rest[:, : contextual * step : step], keys)
    return join_targets(kept, spaced_targets(kept, positions, contextual, avoid), keys)


def spaced_targets(kept: Tensor, positions: int, count: int, avoid: Tensor) -> Tensor:
    """Evenly spaced ones of the tokens of each frame that are neither kept nor avoided.

    Args:
        kept: (T, k) int64.
        positions: N.
        count: m, at most N - k.
        avoid: (N,) bool.

    Returns:
        (T, m) int64, ascending. No synchronisation.
    """
    frames, device = len(kept), kept.device
    last = avoid.to(device, torch.uint8).repeat(frames, 1)
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
    first = torch.arange(frames, device=keys.device)[:, None]
    own = F.normalize(keys.gather(1, targets[:, :, None].expand(-1, -1, keys.shape[2])).float(), dim=-1)
    joined = dots_with(keys, own).argmax(-1)  # a token's own norm does not change which target is nearest
    target = joined.add_(first * (dominant + contextual) + dominant)
    anchor = torch.cat([kept, targets], 1)
    target.scatter_(1, anchor, torch.arange(anchor.numel(), device=keys.device).view(frames, -1))
    return Merge.averaging(target.flatten(), (anchor + first * positions).flatten(), 0.5)._knowing(frames * positions)
