"""Temporal trees: tokens that move up to the most similar token of the frame before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from holitom.edges import send, sum_rows, sums_in_order
from holitom.ops.density_groups import Group, cluster_groups
from holitom.ops.similarity import row_chunk
from holitom.ops.temporal import token_norms


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees over the S = T*N tokens of a video.

    Args:
        root: (S,) int64, the root of each token's tree; a root is its own.
        children: (S,) int64, how many tokens moved to each directly.
        size: (S,) int64, how many tokens each root's tree has, itself included (0 for tokens that moved).
    """

    root: Tensor
    children: Tensor
    size: Tensor


def nearest_before(features: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar free token of the frame before, for each free token.

    Args:
        features: (T, N, D) floating point.
        free: (T, N) bool.

    Returns:
        (T-1, N) float32 cosines, -1 where there are none; (T-1, N) int64 positions.
    """
    scale = token_norms(features).clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()
    found = []
    step = row_chunk(features.shape[1] * max(features.shape[1:]), features.device)
    for start in range(0, len(features) - 1, step):
        now, before = slice(start + 1, start + 1 + step), slice(start, min(start + step, len(features) - 1))
        cosine = features[now].float() @ features[before].float().transpose(1, 2)
        found.append(cosine.mul_(scale[before, None]).masked_fill_(~free[before, None], -torch.inf).max(-1))
    best, parent = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True))
    return (best * scale[1:]).masked_fill_(~free[1:] | best.isneginf(), -1.0), parent


def grow_trees(features: Tensor, free: Tensor, spans: list[tuple[int, int]], similarity: float, least: int) -> Forest:
    """Moves free tokens to their most similar free token of the frame before, where that is similar enough.

    A token moves within its segment when its best cosine is above ``similarity``; where fewer than ``least`` tokens a
    frame would stay in a segment, above the value that leaves one more. Source: FlashVID (arXiv 2602.08024), tree-based
    spatiotemporal merging.

    Args:
        features: (T, N, D) floating point.
        free: (T, N) bool, which tokens take part.
        spans: the first and last frame of each segment.
        similarity: a cosine; only tokens above it move.
        least: the least number of tokens a frame that stay in a segment, of all of its tokens.

    Returns:
        the trees of all segments. No synchronisation.
    """
    (frames, positions, _), device = features.shape, features.device
    places = torch.arange(frames * positions, device=device)
    if frames == 1:
        return Forest(places, torch.zeros_like(places), torch.ones_like(places))
    length = torch.tensor([last - first + 1 for first, last in spans], device="cpu")
    begin = length.cumsum(0) - length
    segment = torch.repeat_interleave(torch.arange(len(spans), device="cpu"), length)
    inside = torch.arange(int(length.max()), device="cpu") < length[:, None]
    table = (begin[:, None] + torch.arange(inside.shape[1], device="cpu")).clamp(max=frames - 1)
    rank = torch.minimum(length * least, length * positions - 1)  # of the value that leaves one more than the least
    moving, starts = (
        length * (positions - least),
        torch.zeros(frames, dtype=torch.int64, device="cpu").index_fill_(0, begin, 1),
    )
    sent = send([segment, table, (~inside).long(), rank[:, None], moving, starts], device)
    segment, table, absent, rank, moving, starts = sent

    best, parent = nearest_before(features, free)
    best = torch.cat([best.new_full((1, positions), -1.0), best]).masked_fill_(starts[:, None].bool(), -1.0)
    each = best[table]  # (C, frames, N)
    threshold = float(np.float32(similarity))
    beyond = absent.bool()[..., None]
    tight = each.masked_fill(beyond, torch.inf).flatten(1).sort(1).values.gather(1, rank)[:, 0].clamp_(min=-1 + 1e-6)
    too_few = ((each > threshold) & ~beyond).sum((1, 2)) > moving
    moves = best > torch.where(too_few, tight, torch.full_like(tight, threshold))[segment][:, None]

    before = torch.cat([places[:positions], (parent + places[:-positions:positions][:, None]).flatten()])
    step = torch.where(moves.flatten(), before, places)
    root = step
    for _ in range(max(1, math.ceil(math.log2(max(last - first + 1 for first, last in spans) + 1)))):
        root = root[root]
    children = torch.zeros_like(places).index_add_(0, before, moves.flatten().long())
    return Forest(root, children, torch.zeros_like(places).index_add_(0, root, torch.ones_like(places)))


class TreeClusters(NamedTuple):
    """Edges (E,) from sources to outputs with their weights, the anchor (M,) of each output, and how many sources are
    selected or have edges."""

    source: Tensor
    output: Tensor
    weight: Tensor
    anchor: Tensor
    distinct: int


def cluster_trees(
    features: Tensor,
    free: Tensor,
    pool: Tensor,
    forest: Forest,
    divisor: Tensor,
    spans: list[tuple[int, int]],
    budget: int,
    neighbours: int,
) -> TreeClusters:
    """Sums each tree and divides it, then averages density-peak clusters of these in each frame.

    All roots of a segment share its budget: a frame with r roots gets ceil(r * budget / roots) clusters. Where there
    are no more roots than that, they stay.

    Args:
        features: (T, N, D) floating point.
        free: (T, N) bool, the tokens that are not selected.
        pool: (T, N) bool, the tokens that take part.
        forest: their trees.
        divisor: (S,) by what the sum of each root's tree is divided.
        spans: the first and last frame of each segment.
        budget: the clusters of a frame, all frames of a segment together.
        neighbours: k of the density, at most the number of clusters is used.

    Returns:
        Edges from S sources. Waits for the device once, for how many roots there are, and again for every further part
        of a long video.
    """
    rows, device = features.flatten(0, 1), features.device
    stays = pool & (forest.size > 0).view(pool.shape)
    counted = torch.stack([stays.sum(1), pool.sum(1), (pool | ~free).sum(1)]).tolist()
    roots, members, distinct = counted[0], sum(counted[1]), sum(counted[2])
    groups = []
    for first, last in spans:
        ratio = budget * (last - first + 1) / max(1, sum(roots[first : last + 1]))
        for count in roots[first : last + 1]:
            wanted = min(count, math.ceil(count * ratio)) if ratio < 1 else count
            groups.append(Group(count, wanted, max(1, min(wanted, neighbours))))
    groups, total = [group for group in groups if group.size], sum(roots)
    if not total:
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return TreeClusters(nothing, nothing, nothing.float(), nothing, distinct)
    tokens = stays.flatten().byte().argsort(descending=True, stable=True)[:total]
    number = (stays.flatten().cumsum(0) - 1)[forest.root].masked_fill_(~pool.flatten(), total)
    number, source = number.sort(stable=True)
    share = (1 / divisor.clamp(min=1).float())[forest.root][source]
    found, start, base = [], 0, 0
    for some in _chunks(groups, row_chunk(rows.shape[1], device)):  # the sums of all trees may be as large as the video
        stop = start + sum(group.size for group in some)
        if device.type == "cpu":
            part = slice(
                *(int(place) for place in torch.searchsorted(number, torch.tensor([start, stop], device="cpu")))
            )
            values = sums_in_order(rows, source[part], number[part] - start, share[part], stop - start)
        else:
            begin = torch.searchsorted(number, torch.arange(start, stop + 1, device=device))
            lowest = int(begin[0]) if start else 0
            values = sum_rows(rows, source[lowest:], begin - lowest, share[lowest:], wide=True)
        part_of = cluster_groups(values, some, ascending=False)
        found.append((part_of.number + base, part_of.share, part_of.centre + start))
        start, base = stop, base + len(part_of.centre)
    clusters, shared, centre = (torch.cat(parts) for parts in zip(*found, strict=True))
    number, source = number[:members], source[:members]
    return TreeClusters(source, clusters[number], share[:members] * shared[number], tokens[centre], distinct)


def _chunks(groups: list[Group], most: int) -> list[list[Group]]:
    """Neighbouring groups, of at most so many points together where they have more than one."""
    chunks: list[list[Group]] = [[]]
    for group in groups:
        if chunks[-1] and sum(each.size for each in chunks[-1]) + group.size > most:
            chunks.append([])
        chunks[-1].append(group)
    return chunks
