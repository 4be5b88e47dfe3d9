"""Diversity: pick, one after the other, the token that is farthest from all picked ones, or spans most with them."""

from __future__ import annotations

import torch
from torch import Tensor

from holitom.ops.farthest import FAR, can_pick, pick_farthest
from holitom.ops.similarity import row_norms

_BLOCK = 512  # rows of the similarity matrix at a time, so that it never exists as a whole
_TINY = torch.finfo(torch.float32).tiny
_ROUNDING = 1e-5  # of a row's own square: what is left of it below that is rounding


def most_isolated(rows: Tensor, norms: Tensor | None = None) -> Tensor:
    """() int64: the row whose most similar other row is the least similar, by cosine.

    The first pick of max-min diversity. Works on blocks of the similarity matrix and on each pair once.

    Args:
        rows: (n, D) floating point.
        norms: (n,) float32, where known already.
    """
    count = len(rows)
    norms = row_norms(rows).clamp_(min=_TINY) if norms is None else norms
    nearest = torch.full((count,), -2.0, dtype=torch.float32, device=rows.device)
    blocks = [slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    for i, left in enumerate(blocks):
        unit = rows[left].float() / norms[left, None]
        for right in blocks[i:]:
            cosine = unit @ (unit if right == left else rows[right].float() / norms[right, None]).T
            cosine.nan_to_num_(nan=-2.0)
            if right == left:
                cosine.fill_diagonal_(-2.0)
            else:
                nearest[right] = nearest[right].maximum(cosine.amax(0))
            nearest[left] = nearest[left].maximum(cosine.amax(1))
    return nearest.masked_fill_(~norms.isfinite(), 2.0).argmin()


def farthest_rows(rows: Tensor, count: int) -> Tensor:
    """Greedy max-min selection by cosine distance: the most isolated row, then ever the one farthest from all picked.

    Distances to picks only ever shrink, so a distance from before the latest picks is an upper bound. On a CPU a block
    of rows is brought up to date only when its bound is the largest, for all picks since, in one product.

    Args:
        rows: (n, D) floating point.
        count: m, from 1 to n; no row is picked twice.

    Returns:
        (m,) int64 in order of picking. Of equals the lower index, as far as rounding lets them be equal. Rows that
        are not finite come last. On an accelerator no synchronisation.
    """
    total, width = rows.shape
    norms = row_norms(rows).clamp_(min=_TINY)
    if rows.device.type != "cpu" and can_pick(rows.device, total):
        return _farthest_of_matrix(rows, norms, count)
    first = most_isolated(rows, norms)
    if rows.device.type != "cpu":
        return _farthest_eager(rows, norms, first, count)
    picked = torch.empty(count, dtype=torch.int64, device="cpu")
    picked[0] = first
    units = torch.empty(count, width, dtype=torch.float32, device="cpu")
    units[0] = rows[first].float() / norms[first]

    step = min(_BLOCK // 2, max(1, total // 16))
    blocks = [slice(start, min(start + step, total)) for start in range(0, total, step)]
    distance = _unpicked(norms)
    distance[first] = -torch.inf  # picked rows are out
    bound = torch.full((len(blocks),), torch.inf, dtype=torch.float32, device="cpu")
    seen = [0] * len(blocks)
    for number in range(1, count):
        while True:
            best = int(bound.argmax())
            if seen[best] == number:
                break
            block = blocks[best]
            cosine = rows[block].float() @ units[seen[best] : number].T
            distance[block] = distance[block].fmin(1 - cosine.amax(1) / norms[block])
            bound[best], seen[best] = distance[block].max(), number
        index = blocks[best].start + int(distance[blocks[best]].argmax())
        picked[number] = index
        units[number] = rows[index].float() / norms[index]
        distance[index] = -torch.inf
    return picked


def _unpicked(norms: Tensor) -> Tensor:
    """(n,) float32 distances before any pick: none, and for rows that are not finite less than any."""
    return torch.full_like(norms, torch.inf).masked_fill_(~norms.isfinite(), -1.0)


def _farthest_of_matrix(rows: Tensor, norms: Tensor, count: int) -> Tensor:
    """:func:`farthest_rows` from all distances at once, in one operation."""
    unit = rows.float() / norms[:, None]
    distance = torch.addmm(unit.new_ones(1, 1), unit, unit.T, alpha=-1).nan_to_num_(nan=3.0, posinf=3.0, neginf=3.0)
    sound = norms < torch.inf
    apart = distance.fill_diagonal_(3.0).amin(1).masked_fill_(~sound, -1.0)
    start = torch.full_like(norms, FAR).masked_fill_(~sound, -1.0)
    start.scatter_(0, apart.argmax(keepdim=True), 2 * FAR)
    picked: Tensor = pick_farthest(distance[None], start[None], None, count)[0]
    return picked[0]


def _farthest_eager(rows: Tensor, norms: Tensor, first: Tensor, count: int) -> Tensor:
    """:func:`farthest_rows` after its first pick, without waiting for the device: all rows at every pick."""
    picked = [first.view(1)]
    distance = _unpicked(norms)
    for _ in range(1, count):
        last = picked[-1]
        cosine = (rows @ rows[last][0]).float() / (norms * norms[last])
        distance = distance.fmin(1 - cosine).index_fill_(0, last, -torch.inf)  # picked rows are out
        picked.append(distance.argmax().view(1))
    return torch.cat(picked)


def farthest_batched(distance: Tensor, count: int) -> Tensor:
    """:func:`farthest_rows` in every frame of a batch at once, from given (possibly weighted) distances.

    Args:
        distance: (B, n, n) float32; [b, i, j] is the distance of candidate j from the picked i.
        count: m, from 0 to n.

    Returns:
        (B, m) int64 in order of picking. No synchronisation.
    """
    batch, total, _ = distance.shape
    if not count:
        return torch.empty(batch, 0, dtype=torch.int64, device=distance.device)
    second = distance.topk(min(2, total), dim=1, largest=False).values[:, -1]
    start = torch.full_like(second, FAR).scatter_(1, second.argmax(1, keepdim=True), 2 * FAR)
    picked: Tensor = pick_farthest(distance, start, None, count)[0]
    return picked


def token_distances(x: Tensor, norms: Tensor) -> Tensor:
    """1 - cosine between the rows of each frame, exactly 0 on the diagonal.

    Args:
        x: (B, n, D) float32, the rows of B frames.
        norms: (B, n) float32, their norms, at least a tiny number.

    Returns:
        (B, n, n) float32.
    """
    cosine = (x @ x.transpose(1, 2)).div_(norms[:, :, None]).div_(norms[:, None, :])
    distance = cosine.neg_().add_(1)
    distance.diagonal(dim1=1, dim2=2).zero_()
    return distance


def greedy_determinant(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Picks, one after the other, what makes the determinant of the picked grow most: greedy MAP inference of a DPP.

    In every frame of a batch at once. What a candidate would add is its conditional variance (where the kernel holds
    dot products, its squared distance from the span of all picked), brought up to date by one row of an incremental
    Cholesky factor at each pick (Chen et al., NeurIPS 2018). Where nothing but rounding is left to add, any may come
    next.

    Args:
        kernel: (B, n, n) float32, symmetric and positive semidefinite.
        count: m, from 1 to n; no candidate is picked twice.

    Returns:
        (B, m) int64 in order of picking; (B, m) float32, what each added. No synchronisation.
    """
    kernel = kernel.detach()
    left = kernel.diagonal(dim1=1, dim2=2).clone()
    least, (batch, total) = left * _ROUNDING, left.shape
    factor = torch.empty(batch, count, total, dtype=torch.float32, device=kernel.device)
    picked, added = [], []
    for number in range(count):
        best = left.argmax(1, keepdim=True)
        gain = left.gather(1, best)
        picked.append(best)
        added.append(gain)
        across = kernel.gather(1, best[:, :, None].expand(-1, -1, total))
        if number:
            before = factor[:, :number]
            column = before.gather(2, best[:, None].expand(-1, number, -1))
            across = torch.baddbmm(across, column.transpose(1, 2), before, alpha=-1)
        scale = torch.where(gain > least.gather(1, best), gain, torch.inf).rsqrt_()
        step = torch.mul(across[:, 0], scale, out=factor[:, number])
        left.addcmul_(step, step, value=-1).scatter_(1, best, -torch.inf)
    return torch.cat(picked, 1), torch.cat(added, 1).clamp_(min=0)


def distinct_rows(rows: Tensor, order: Tensor, count: int, similarity: float) -> Tensor:
    """In a given order, each row that is less like every row admitted so far than a bound; at most ``count``.

    Rows are looked at in blocks. Within one, a row is in as soon as every earlier one that it is like is out, and out
    as soon as one of these is in: some rounds with the result of going row by row. Waits for the device at each.

    Args:
        rows: (n, D) floating point; what is not finite counts as 0.
        order: (n,) int64, the rows from first to last.
        count: m, at least 1.
        similarity: a cosine.

    Returns:
        (p,) int64, p <= m, in the order of admission.
    """
    pool, found, size = torch.empty(count, rows.shape[1], dtype=torch.float32, device=rows.device), [], 0
    for block in (order[first : first + _BLOCK] for first in range(0, len(order), _BLOCK)):
        unit = torch.nn.functional.normalize(rows[block].float(), dim=1).nan_to_num_(0.0, 0.0, 0.0)
        waiting = ~((unit @ pool[:size].T) >= similarity).any(1)
        like = ((unit @ unit.T) >= similarity).tril_(-1)
        chosen = torch.zeros_like(waiting)
        while bool(waiting.any()):
            out = (like & chosen).any(1)
            chosen |= waiting & ~out & ~(like & waiting).any(1)
            waiting &= ~out & ~chosen
        chosen_rows = chosen.nonzero()[: count - size, 0]
        pool[size : size + len(chosen_rows)] = unit[chosen_rows]
        found.append(block[chosen_rows])
        size += len(chosen_rows)
        if size == count:
            break
    return torch.cat(found)
