"""Dominant and contextual tokens: a few stay, the others join evenly spaced targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import Merge
from holitom.ops.ranking import top_indexes
from holitom.ops.temporal import dots_with


def dominant_contextual(scores: Tensor, keys: Tensor, dominant: int, contextual: int) -> Merge:
    """For each frame, the best-scoring tokens as they are, then the others merged into evenly spaced targets.

    Of the R tokens that are not dominant, each (R div contextual)-th is a target; every other one joins the target
    with the most similar key. A contextual token is the mean of its target and the mean of those that joined.
    Source: VisionZip (arXiv 2412.04467), section 3.

    Args:
        scores: (T, N) floating point.
        keys: (T, N, K) what is compared by cosine.
        dominant: tokens a frame that stay, at least 0.
        contextual: targets a frame, at least 0; both together from 1 to N.

    Returns:
        A map of T*N tokens; for each frame the dominant tokens by position, then the contextual ones by the position
        of their targets. No synchronisation.
    """
    frames, positions = scores.shape
    kept = top_indexes(scores, dominant)
    is_kept = torch.zeros(frames, positions, dtype=torch.bool, device=scores.device).scatter_(1, kept, True)
    if not contextual:
        first = torch.arange(frames, device=scores.device)[:, None] * positions
        return Merge.keep((kept + first).flatten(), frames * positions)
    rest = is_kept.byte().argsort(dim=1, stable=True)[:, : positions - dominant]  # ascending
    step = max(1, rest.shape[1] // contextual)
    targets = rest[:, : contextual * step : step]

    own = F.normalize(keys.gather(1, targets[:, :, None].expand(-1, -1, keys.shape[2])).float(), dim=-1)
    joined = dots_with(keys, own).argmax(-1)  # a token's own norm does not change which target is nearest
    joined.scatter_(1, targets, torch.arange(contextual, device=scores.device).expand(frames, -1))
    is_target = torch.zeros_like(is_kept).scatter_(1, targets, True)
    member = ~is_kept & ~is_target
    size = torch.zeros(frames, contextual, dtype=torch.float32, device=scores.device)
    size = size.scatter_add_(1, joined, member.to(torch.float32)).gather(1, joined)
    half = 0.5 / size.clamp(min=1)
    weight = torch.where(is_target, 1 - 0.5 * (size > 0).to(torch.float32), half).masked_fill(is_kept, 1.0)

    target = torch.where(is_kept, is_kept.cumsum(1) - 1, dominant + joined)
    frame = torch.arange(frames, device=scores.device)[:, None]
    anchor = torch.cat([kept, targets], 1) + frame * positions
    target = target + frame * (dominant + contextual)
    return Merge(target.flatten(), weight.flatten(), anchor.flatten())._knowing(frames * positions)
