"""Anchor frames that draw on one common pool of tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import Shares


class Anchor(NamedTuple):
    """A frame and how many of its tokens are targets."""

    frame: int
    size: int


def join_anchors(
    features: Tensor,
    pool: Tensor,
    anchors: list[Anchor],
    targets: list[Tensor],
    beta: float,
    *,
    own_targets: bool,
) -> Shares:
    """Every token of a pool joins, for each anchor frame, that frame's most similar target.

    A target that c tokens joined becomes v * target + (1 - v) * mean of the c, with v = max(1 / (c + 1), beta).
    Source: FastVID (arXiv 2503.11187), anchor-centric aggregation.

    Args:
        features: (n, N, D) floating point, of the pool's frames.
        pool: (n, N) bool, which of their tokens are in it.
        anchors: A anchor frames.
        targets: for each anchor the positions (size,) int64 of its targets in its frame.
        beta: the least weight of a target.
        own_targets: whether an anchor's targets are in its own pool too.

    Returns:
        The edges from n*N sources to the targets of all anchors, anchor by anchor.
    """
    device = features.device
    frames, positions, width = features.shape
    most = max(anchor.size for anchor in anchors)
    units = torch.zeros(len(anchors), most, width, dtype=torch.float32, device=device)
    missing = torch.ones(len(anchors), most, dtype=torch.bool, device=device)
    for number, (anchor, target) in enumerate(zip(anchors, targets, strict=True)):
        units[number, : anchor.size] = F.normalize(features[anchor.frame, target].float(), dim=-1)
        missing[number, : anchor.size] = False

    columns = units.flatten(0, 1).T
    joined = torch.empty(frames, positions, len(anchors), dtype=torch.int64, device=device)
    for t in range(frames):  # a token's own norm does not change which target is nearest
        dots = (features[t].float() @ columns).view(positions, len(anchors), most)
        joined[t] = dots.masked_fill_(missing, -torch.inf).argmax(-1)

    member = pool[:, :, None].expand(-1, -1, len(anchors))
    if not own_targets:
        member = member.clone()
        for number, (anchor, target) in enumerate(zip(anchors, targets, strict=True)):
            member[anchor.frame, target, number] = False
    base = torch.tensor([0, *[anchor.size for anchor in anchors]]).cumsum(0).to(device, non_blocking=True)
    total = sum(anchor.size for anchor in anchors)
    source, taker = member.flatten(0, 1).nonzero(as_tuple=True)
    output = base[taker] + joined.flatten(0, 1)[source, taker]
    joiners = torch.bincount(output, minlength=total)
    joiners = joiners.to(torch.float32)
    own = (1 / (joiners + 1)).clamp(min=beta)
    places = torch.cat([target + anchor.frame * positions for anchor, target in zip(anchors, targets, strict=True)])
    return Shares(
        torch.cat([source, places]),
        torch.cat([output, torch.arange(total, device=device)]),
        torch.cat([((1 - own) / joiners.clamp(min=1))[output], own]),
    )
