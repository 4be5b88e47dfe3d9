"""Temporal trees: tokens that move up to the most similar token of the frame before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from holitom.ops.density import DensityPeaks
from holitom.ops.temporal import token_norms, weighted_sums


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees over the n*N tokens of a segment.

    Args:
        root: (n, N) int64, the flat token at the root of each token's tree; a root is its own.
        children: (n*N,) int64, how many tokens moved to each directly.
        size: (n*N,) int64, how many tokens each root's tree has, itself included (0 for tokens that moved).
    """

    root: Tensor
    children: Tensor
    size: Tensor


def grow_trees(features: Tensor, free: Tensor, similarity: float, least: int) -> Forest:
    """Moves free tokens to their most similar free token of the frame before, where that is similar enough.

    A token moves when its best cosine is above ``similarity``; where fewer than ``least`` tokens would stay, above the
    value that leaves least + 1. Source: FlashVID (arXiv 2602.08024), tree-based spatiotemporal merging.

    Args:
        features: (n, N, D), the frames of one segment.
        free: (n, N) bool, which tokens take part.
        similarity: a cosine; only tokens above it move.
        least: the least number of tokens that stay, of all n*N.
    """
    frames, positions, _ = features.shape
    best = torch.full((frames, positions), -1.0, dtype=torch.float32, device=features.device)
    parent = torch.zeros(frames, positions, dtype=torch.int64, device=features.device)
    scale = token_norms(features).clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()
    before = features[0].float()
    for frame in range(1, frames):
        here = features[frame].float()
        cosine = (here @ before.T).mul_(scale[frame - 1]).masked_fill_(~free[frame - 1], -torch.inf)
        value, parent[frame] = cosine.max(-1)
        best[frame] = (value * scale[frame]).masked_fill(~free[frame] | value.isneginf(), -1.0)
        before = here

    threshold = float(np.float32(similarity))
    moving = frames * positions - least
    tight = best.flatten().kthvalue(max(1, least + 1)).values.clamp(min=-1 + 1e-6) if moving > 0 else best.max()
    too_few = (best > threshold).sum() > moving
    moves = best > torch.where(too_few, tight, threshold)

    places = torch.arange(frames * positions, device=features.device).view(frames, positions)
    root = places.clone()
    for frame in range(1, frames):
        root[frame] = torch.where(moves[frame], root[frame - 1][parent[frame]], root[frame])
    direct = (places - places % positions - positions + parent)[moves]
    children = torch.bincount(direct, minlength=frames * positions)
    return Forest(root, children, torch.bincount(root.flatten(), minlength=frames * positions))


class Clusters(NamedTuple):
    """Edges (E,) from sources to outputs with their weights, and the anchor (M,) of each output."""

    source: Tensor
    output: Tensor
    weight: Tensor
    anchor: Tensor


def cluster_trees(
    features: Tensor, free: Tensor, forest: Forest, divisor: Tensor, budget: int, neighbours: int
) -> Clusters:
    """Sums each tree and divides it, then averages density-peak clusters of these in each frame.

    All roots of a segment share ``budget``: a frame with r roots gets ceil(r * budget / roots) clusters. Where there
    are no more roots than that, they stay.

    Args:
        features: (n, N, D) floating point, the frames of one segment.
        free: (n, N) bool, the tokens that take part.
        forest: their trees.
        divisor: (n*N,) by what the sum of each root's tree is divided.
        budget: the clusters of all frames together.
        neighbours: k of the density, at most the number of clusters is used.

    Returns:
        Edges from n*N sources; outputs frame by frame, in descending order of the centres' scores. Waits for the
        device.
    """
    frames, positions, width = features.shape
    rows, members = features.reshape(-1, width), free.flatten().nonzero()[:, 0]
    root = forest.root.flatten()[members]
    order = root.argsort(stable=True)
    members, root = members[order], root[order]
    share = 1 / divisor.clamp(min=1).float()
    stays = (free.flatten() & (forest.size > 0)).view(frames, positions)
    counts = stays.sum(1).tolist()
    ends = torch.bincount(root // positions, minlength=frames).cumsum(0).tolist()
    ratio = budget / max(1, sum(counts))

    number = torch.zeros_like(forest.size)
    own = torch.ones_like(share)
    anchors: list[Tensor] = []
    base = start = 0
    for frame, count in enumerate(counts):
        here = stays[frame].nonzero()[:, 0] + frame * positions
        mine = slice(start, ends[frame])
        start = ends[frame]
        wanted = math.ceil(count * ratio)
        number[here] = torch.arange(count, device=rows.device)
        roots = here
        if ratio < 1 and 0 < wanted < count:
            values = weighted_sums(rows, members[mine], number[root[mine]], share[root[mine]], count)
            peaks = DensityPeaks.of(values, wanted, min(wanted, neighbours), ascending=False)
            number[here] = peaks.cluster
            own[here] = 1 / torch.bincount(peaks.cluster, minlength=wanted)[peaks.cluster].float()
            here = here[peaks.centres]
        number[roots] += base
        anchors.append(here)
        base += len(here)
    return Clusters(members, number[root], share[root] * own[root], torch.cat(anchors))
