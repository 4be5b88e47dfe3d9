"""Spread: pick, one after the other, the token that is farthest from all picked ones in content and in time.

How far token i of frame s is from token j of frame t is ``1 - cos(i, j) + step * |s - t|``, of features minus the
video's mean. What is picked next is the token with the largest distance to its nearest pick times its weight: the norm
of its centred feature over the mean norm. The picks for a smaller number are the first of those for a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom import kernels
from holitom.ops.farthest import FAR, can_pick, pick_farthest
from holitom.ops.similarity import row_chunk, row_norms

START = 4  # in rounds: the least that a round after the first picks
GROWTH = 1  # in rounds: a round picks so many times what was picked before it
CROWD = 3  # in rounds: so many candidates for each pick of a round
_TINY = torch.finfo(torch.float32).tiny
_ROUNDING = 1e-6  # norms below it, in units of the largest number, are what rounding leaves of equal tokens
_LEAST = 1e-6  # weight
LAST = 1e-24  # the weight of a token that is not finite: above that of one that is picked
_BLOCK = 1 << 22  # distances at a time


@dataclass(frozen=True, eq=False)
class Picks:
    """Which tokens were picked, and the nearest pick of every token. For M picks of S = T*N tokens:

    Args:
        index: (M,) int64, flat positions t * N + n in order of picking.
        owner: (S,) int64, the number of each token's nearest pick, of equals the first; its own for a pick.
        distance: (S,) float32, how far that is; 0 for a pick.
    """

    index: Tensor
    owner: Tensor
    distance: Tensor


def sketch(features: Tensor, width: int) -> Tensor:
    """A short form of every token that keeps inner products up to noise of about ``1 / sqrt(width)``, from one read.

    Channels are cut into ``width`` groups of neighbours, and each group is added up with random signs, always the same
    and those of one group for all (so that it is a product with a vector). Tokens with at most ``width`` channels stay
    as they are.

    Args:
        features: (T, N, D) floating point.
        width: channels of the result.

    Returns:
        (T, N, min(D, width)) float32. No synchronisation.
    """
    frames, positions, channels = features.shape
    if channels <= width:
        return features.float()
    rows, device = features.reshape(frames * positions, channels), features.device
    group = channels // width
    whole = group * width
    coin = torch.Generator().manual_seed(0)
    sign = (
        torch.randint(0, 2, (group,), generator=coin, device="cpu")
        .mul_(2)
        .sub_(1)
        .float()
        .to(device, non_blocking=True)
    )
    short = torch.empty(len(rows), width, dtype=torch.float32, device=device)
    step = row_chunk(channels, device)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        wide = rows[part].float()
        torch.mv(wide[:, :whole].reshape(-1, group), sign, out=short[part].view(-1))
        if whole < channels:
            short[part, : channels - whole] += wide[:, whole:]
    return short.view(frames, positions, width)


def directions(short: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens minus the mean of the video, as directions and weights.

    A token with a value that is not finite has no part in the mean; its direction is 0 and its weight ``LAST``.

    Args:
        short: (T, N, d) float32.

    Returns:
        (T, N, d) float32 of norm 1, or 0 for a token that cannot be told from the mean; (T, N) float32, the norms
        before, over the mean of these norms. No synchronisation.
    """
    if short.device.type != "cpu" and can_pick(short.device, short.shape[0] * short.shape[1]):
        found: tuple[Tensor, Tensor] = _directions(short)
        return found
    return _plain_directions(short)


@torch.library.custom_op("holitom::directions", mutates_args=())
def _directions(short: Tensor) -> tuple[Tensor, Tensor]:
    module = kernels.find(short.device)
    if module is None:
        return _plain_directions(short)
    found: tuple[Tensor, Tensor] = module.directions(short, _ROUNDING, _TINY, _LEAST, LAST)
    return found


@_directions.register_fake
def _(short: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(short), torch.empty_like(short[..., 0])


def _plain_directions(short: Tensor) -> tuple[Tensor, Tensor]:
    largest = torch.linalg.vector_norm(short, ord=torch.inf, dim=-1, keepdim=True)
    sound = largest < torch.inf
    broken = ~sound
    short = short.masked_fill(broken, 0.0)
    scale = torch.linalg.vector_norm(short, ord=torch.inf).clamp_(min=_TINY)
    short.div_(scale)  # squares of huge or tiny features must stay numbers
    short.sub_(short.sum((0, 1)) / sound.sum()).masked_fill_(broken, 0.0)
    norms = row_norms(short.flatten(0, 1)).view(short.shape[:2])
    known = F.threshold(norms, _ROUNDING, _TINY)
    weight = (known / known.mean()).clamp_(min=_LEAST).masked_fill_(broken[..., 0], LAST)
    return short.div_(F.threshold(norms, _ROUNDING, torch.inf)[..., None]), weight


def spread_in_order(unit: Tensor, weight: Tensor, count: int, step: float) -> Picks:
    """Picks one token after the other: on the CPU, or in one operation where :func:`can_pick_in_order`.

    A pick cannot bring a frame nearer that is farther from it in time than any of the frame's tokens is from its
    nearest pick, so on the CPU it is compared with a few frames only; the picks are those of a comparison with all.

    Args:
        unit: (T, N, d) float32 directions.
        weight: (T, N) float32. Tokens of weight 0 come last.
        count: M, from 1 to T*N.
        step: what one frame counts, in units of ``1 - cos``.
    """
    frames, positions, channels = unit.shape
    if can_pick_in_order(unit):
        rows = unit.view(-1, channels)
        apart_in_content = torch.addmm(rows.new_ones(1, 1), rows, rows.T, alpha=-1)[None]
        start = torch.full_like(weight, FAR).view(1, -1)
        picked = pick_farthest(apart_in_content, start, weight.view(1, -1), count, positions, step)
        return Picks(*(part[0] for part in picked))
    rows = unit.cpu().contiguous().view(-1, channels)
    weights = weight.cpu().numpy()
    distance = np.full((frames, positions), FAR, np.float32)
    owner = np.zeros((frames, positions), np.int64)
    score = distance * weights
    farthest, best = distance.max(1), score.max(1)
    apart = (step * np.abs(np.arange(1 - frames, frames))).astype(np.float32)
    product = torch.empty(frames * positions, dtype=torch.float32, device="cpu")
    fresh = product.numpy().reshape(frames, positions)
    index = np.empty(count, np.int64)
    for number in range(count):
        t = int(best.argmax())
        i = int(score[t].argmax())
        index[number] = pick = t * positions + i
        gap = apart[frames - 1 - t : 2 * frames - 1 - t]
        near = (gap < farthest).nonzero()[0]
        low, high = (int(near[0]), int(near[-1]) + 1) if len(near) else (t, t + 1)
        torch.mv(rows[low * positions : high * positions], rows[pick], out=product[low * positions : high * positions])
        new, old, values = fresh[low:high], distance[low:high], score[low:high]
        np.subtract(1 + gap[low:high, None], new, out=new)
        nearer = new < old
        nearer[t - low, i] = True
        np.copyto(old, new, where=nearer)
        np.copyto(owner[low:high], number, where=nearer)
        distance[t, i] = -np.inf  # picked: never again
        np.multiply(old, weights[low:high], out=values)
        old.max(1, out=farthest[low:high])
        values.max(1, out=best[low:high])
    flat = distance.reshape(-1)
    flat.put(index, 0.0)
    return Picks(*(torch.from_numpy(part).to(unit.device) for part in (index, owner.reshape(-1), flat)))


def can_pick_in_order(unit: Tensor) -> bool:
    """Whether picks in order are one operation on the device of (T, N, d) directions, which is not a CPU."""
    return unit.device.type != "cpu" and can_pick(unit.device, unit.shape[0] * unit.shape[1])


def spread_in_rounds(unit: Tensor, weight: Tensor, count: int, step: float) -> Picks:
    """Picks many tokens at a time, in a number of rounds that grows with the logarithm of the count. Never waits.

    In a round the tokens with the largest products of distance and weight are candidates. Each is compared with those
    before it, as if all of them had been picked, and the best by what is left of their products are. Arguments as for
    :func:`spread_in_order`.
    """
    tokens, device = unit.shape[0] * unit.shape[1], unit.device
    frame = torch.arange(unit.shape[0], device=device).repeat_interleave(unit.shape[1], output_size=tokens)
    rows = torch.cat([unit.flatten(0, 1), frame[:, None].to(unit.dtype)], 1)  # the time beside the direction
    weights = weight.flatten()
    likeness = torch.full_like(weights, -FAR)  # 1 - distance, of the nearest pick
    sizes = round_sizes(tokens, count)
    crowds = [min(CROWD * size, tokens - before) for size, before in zip(sizes, np.cumsum([0, *sizes]), strict=False)]
    later = torch.ones(max(crowds), max(crowds), dtype=torch.bool, device=device).triu_()
    picks: list[Tensor] = []
    for size, crowd in zip(sizes, crowds, strict=True):
        score, candidates = torch.addcmul(weights, weights, likeness, value=-1).topk(crowd)
        near, heavy = rows[candidates], weights[candidates]
        before = _likeness(near, near, step).masked_fill_(later[:crowd, :crowd], -FAR).amax(1)
        best = torch.minimum(score, torch.addcmul(heavy, heavy, before, value=-1)).topk(size).indices
        best = best[: count - sum(map(len, picks))]  # of equals the same, whatever the count
        picks.append(candidates[best])
        chosen = near[best]
        for part in _blocks(tokens, len(best)):
            torch.maximum(likeness[part], _likeness(rows[part], chosen, step).amax(1), out=likeness[part])
        likeness.index_fill_(0, picks[-1], torch.inf)  # picked: never again
    index = torch.cat(picks)
    owner = torch.empty(tokens, dtype=torch.int64, device=device)
    for part in _blocks(tokens, count):
        likeness[part], owner[part] = _likeness(rows[part], rows[index], step).max(1)
    owner[index] = torch.arange(count, device=device)
    return Picks(index, owner, (1 - likeness).index_fill_(0, index, 0.0))


def round_sizes(tokens: int, count: int) -> list[int]:
    """How many tokens each round picks, the last one perhaps more than are still to come: of so many ``tokens`` this
    depends on the ``count`` in its length alone, so that smaller numbers have the first picks of larger ones."""
    sizes = [1]
    while (picked := sum(sizes)) < count:
        sizes.append(min(max(START, GROWTH * picked), tokens - picked))
    return sizes


def _likeness(rows: Tensor, others: Tensor, step: float) -> Tensor:
    """(R, d + 1) directions with their frames, (P, d + 1) -> (R, P): 1 - distance."""
    apart = (rows[:, -1:] - others[:, -1]).abs_()
    return torch.addmm(apart, rows[:, :-1], others[:, :-1].T, beta=-step)


def _blocks(tokens: int, columns: int) -> list[slice]:
    """Slices of tokens of which a matrix with so many columns is small enough."""
    block = max(1, _BLOCK // columns)
    return [slice(start, start + block) for start in range(0, tokens, block)]


def picking_scores(unit: Tensor, weight: Tensor, count: int, step: float) -> Tensor:
    """Scores in the order of picking, in order on a CPU and where that is one operation, else in rounds.

    Args:
        unit: (T, N, d) float32 directions.
        weight: (T, N) float32.
        count: how many tokens are picked; the others follow by their distance to the nearest pick times their weight.
        step: what one frame counts, in units of ``1 - cos``.

    Returns:
        (T, N) float32, 1 and more for picks, less than 1 for the others.
    """
    in_order = unit.device.type == "cpu" or can_pick_in_order(unit)
    picks = (spread_in_order if in_order else spread_in_rounds)(unit, weight, count, step)
    left = picks.distance * weight.flatten()
    scores = left / (left.amax() + 1)
    return scores.index_copy_(0, picks.index, torch.arange(count, 0, -1, dtype=torch.float32, device=unit.device)).view(
        weight.shape
    )


def most_alike(unit: Tensor, share: float, bonus: Tensor | None = None) -> Tensor:
    """Which positions are most like themselves one frame later.

    Args:
        unit: (T, N, d) float32 directions.
        share: of the links, in (0, 1): those with the largest cosines; of equal ones none may be, or all.
        bonus: (N,) float32, added to the cosines of each position that are compared with that; None: nothing.

    Returns:
        (T-1, N) bool. No synchronisation.
    """
    cosine = (unit[1:] * unit[:-1]).sum(-1)
    if not cosine.numel():
        return cosine > 0
    least = cosine.flatten().kthvalue(max(1, round((1 - share) * cosine.numel()))).values
    return (cosine if bonus is None else cosine + bonus) > least
