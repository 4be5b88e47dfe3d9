"""Anchor frames that draw on one common pool of tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import send
from holitom.ops.similarity import row_chunk


class Anchor(NamedTuple):
    """A frame and how many of its tokens are targets."""

    frame: int
    size: int


def nearest_targets(
    features: Tensor, targets: Tensor, pools: list[tuple[int, int, list[Anchor]]], sizes: list[int]
) -> Tensor:
    """Which target of an anchor frame each token is most similar to, for all frames and anchors of each pool.

    Args:
        features: (T, N, D) floating point.
        targets: flat positions t * N + n (K,) int64 of the targets, anchor by anchor.
        pools: the first and last frame of each pool and its anchors.
        sizes: the targets of each anchor.

    Returns:
        (P, N) int64, the place of the target among its anchor's, for each pair of a frame and an anchor of its pool:
        pool by pool, frame by frame, anchor by anchor. No synchronisation.
    """
    device, positions, most = features.device, features.shape[1], max(sizes)
    size = torch.tensor(sizes, device="cpu")
    inside = torch.arange(most, device="cpu") < size[:, None]
    places = (size.cumsum(0) - size)[:, None] + torch.arange(most, device="cpu")
    pairs = torch.tensor(anchor_pairs(pools), device="cpu")
    places, lost, pairs = send([places.clamp(max=len(targets) - 1), (~inside).long(), pairs], device)
    units = F.normalize(features.flatten(0, 1)[targets].float(), dim=-1)[places]  # (A, m, D)
    lost = lost.bool()
    joined = torch.empty(len(pairs), positions, dtype=torch.int64, device=device)
    step = row_chunk(positions * max(most, features.shape[2]), device)
    if device.type == "cpu":
        for pair, (t, each) in enumerate(pairs.tolist()):
            joined[pair] = (features[t].float() @ units[each, : sizes[each]].T).argmax(-1)
        return joined
    for start in range(0, len(pairs), step):  # a token's own norm does not change which target is nearest
        frame, anchor = pairs[start : start + step].unbind(1)
        dots = features[frame].float() @ units[anchor].transpose(1, 2)
        joined[start : start + step] = dots.masked_fill_(lost[anchor][:, None], -torch.inf).argmax(-1)
    return joined


def anchor_pairs(pools: list[tuple[int, int, list[Anchor]]]) -> list[tuple[int, int]]:
    """The frame of each pair of a frame and an anchor of its pool, and the number of the anchor among all."""
    pairs, base = [], 0
    for first, last, anchors in pools:
        pairs += [(frame, base + each) for frame in range(first, last + 1) for each in range(len(anchors))]
        base += len(anchors)
    return pairs


def count_edges(salient: np.ndarray, positions: int, pools: list[tuple[int, int, list[Anchor]]]) -> list[Tensor]:
    """What of the edges of pools can be counted on the host, as the frames' numbers of salient tokens are known.

    Free tokens are those that are not salient, in the order of the video. The edges lead from each free token of a pool
    to each anchor of it.

    Args:
        salient: (T,) int64, how many tokens of each frame are salient.
        positions: N.
        pools: the first and last frame of each pool and its anchors.

    Returns:
        int64 on the CPU: of all frames' rankings, the places t * N + place of salient tokens, and of free ones; (T, 1)
        the first token of each frame; the free tokens of the anchors' frames, anchor by anchor; and for each edge its
        pair of a frame and an anchor (see :func:`anchor_pairs`), its free token, the first target of its anchor, and
        whether its token is of the anchor's own frame.
    """
    free = positions - salient
    begin = free.cumsum() - free
    stays = (np.arange(positions) < salient[:, None]).reshape(-1)
    first = np.arange(len(salient))[:, None] * positions
    anchors = [anchor for _, _, anchored in pools for anchor in anchored]
    frames = np.array([anchor.frame for anchor in anchors], dtype=np.int64)
    sizes = np.array([anchor.size for anchor in anchors], dtype=np.int64)
    near = np.concatenate([*[np.arange(begin[t], begin[t] + free[t]) for t in frames], np.empty(0, np.int64)])
    frame, anchor = np.array(anchor_pairs(pools), dtype=np.int64).reshape(-1, 2).T
    each = free[frame]  # edges of a pair
    pair = np.repeat(np.arange(len(each)), each)
    token = np.arange(len(pair)) - np.repeat(each.cumsum() - each - begin[frame], each)
    base, at_home = (sizes.cumsum() - sizes)[anchor[pair]], (frames[anchor] == frame)[pair]
    arrays = (stays.nonzero()[0], (~stays).nonzero()[0], first, near, pair, token, base, at_home)
    return [torch.from_numpy(array.astype(np.int64, copy=False)) for array in arrays]


def pooled_weights(output: Tensor, total: int, beta: float) -> tuple[Tensor, Tensor]:
    """What a target keeps of itself and what a joining token gives: with c tokens that join, v = max(1 / (c + 1), beta)
    and (1 - v) / c. Source: FastVID (arXiv 2503.11187), anchor-centric aggregation.

    Args:
        output: (E,) int64, the target 0..total-1 that each edge leads to.
        total: K, the targets.
        beta: the least weight of a target.

    Returns:
        (K,) float32 and (E,) float32.
    """
    joiners = torch.zeros(total, dtype=torch.float32, device=output.device)
    joiners = joiners.index_add_(0, output, torch.ones_like(output, dtype=torch.float32))
    own = (1 / (joiners + 1)).clamp(min=beta)
    return own, ((1 - own) / joiners.clamp(min=1))[output]
