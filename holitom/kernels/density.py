"""Density peaks of many groups of points."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _apart(gram, row, column, size, squares, root):
    """Distances (rows, columns) of the points of a group, from their products; beyond its size infinite."""
    here = (row < size)[:, None] & (column < size)[None, :]
    both = tl.load(gram + row[:, None] * squares + column[None, :], mask=here, other=0.0)
    both += tl.load(gram + column[None, :] * squares + row[:, None], mask=here, other=0.0)
    lengths = tl.load(gram + row * squares + row, mask=row < size, other=0.0)[:, None]
    lengths += tl.load(gram + column * squares + column, mask=column < size, other=0.0)[None, :]
    far = tl.sqrt(tl.maximum(lengths - both, 0.0)) / root
    far = tl.where(row[:, None] == column[None, :], 0.0, far)
    return tl.where(here, tl.where(far < float("inf"), far, 3e38), float("inf"))


@triton.jit
def _density_peaks(
    gram, table, penalty, density, score, rank, number, share, leads, points, root, beta,
    COSTS: tl.constexpr, ASCENDING: tl.constexpr, MEAN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for each group. What its threads tell each other goes through memory, with barriers between."""
    group = tl.program_id(0).to(tl.int64)
    gram += group * points * points
    first = group * points
    size = tl.load(table + 3 * group).to(tl.int32)
    centres = tl.load(table + 3 * group + 1).to(tl.int32)
    used = tl.minimum(tl.load(table + 3 * group + 2).to(tl.int32), size)
    column = tl.arange(0, BLOCK)
    there = column < size
    widest = 0.0
    for start in range(0, size, ROWS):
        row = start + tl.arange(0, ROWS)
        far = _apart(gram, row, column, size, points, root)
        real = (row < size)[:, None] & there[None, :]
        widest = tl.maximum(widest, tl.max(tl.max(tl.where(real, far, 0.0), axis=1), axis=0))
        total = tl.zeros([ROWS], tl.float32)
        for _ in range(used):
            least = tl.min(far, axis=1)
            total += least * least
            far = tl.where(column[None, :] == tl.argmin(far, axis=1)[:, None], float("inf"), far)
        tl.store(density + first + row, tl.exp(-total / used), mask=row < size)
    tl.debug_barrier()
    others = tl.load(density + first + column, mask=there, other=-1.0)
    for start in range(0, size, ROWS):
        row = start + tl.arange(0, ROWS)
        own = tl.load(density + first + row, mask=row < size, other=0.0)
        denser = (others[None, :] > own[:, None]) | (
            (others[None, :] == own[:, None]) & (column[None, :] < row[:, None])
        )
        denser = denser & there[None, :]
        far = _apart(gram, row, column, size, points, root)
        gap = tl.min(tl.where(denser, far, float("inf")), axis=1)
        value = own * tl.where(tl.max(denser.to(tl.int32), axis=1) == 0, widest, gap)
        if COSTS:
            value -= tl.load(penalty + first + row, mask=row < size, other=0.0)
        value = tl.where(value == value, value, float("-inf"))
        tl.store(score + first + row, value, mask=row < size)
    tl.debug_barrier()
    others = tl.load(score + first + column, mask=there, other=float("-inf"))
    for start in range(0, size, ROWS):
        row = start + tl.arange(0, ROWS)
        own = tl.load(score + first + row, mask=row < size, other=0.0)
        higher = (others[None, :] > own[:, None]) | (
            (others[None, :] == own[:, None]) & (column[None, :] < row[:, None])
        )
        higher = (higher & there[None, :]).to(tl.int32)
        tl.store(rank + first + row, tl.sum(higher, axis=1), mask=row < size)
    tl.debug_barrier()
    place = tl.load(rank + first + column, mask=there, other=2147483647)
    leading = place < centres
    if ASCENDING:
        place = tl.cumsum(leading.to(tl.int32), axis=0) - 1
    else:
        place = tl.where(centres == size, column, place)
    tl.store(leads + first + place, column.to(tl.int64), mask=leading)
    for start in range(0, size, ROWS):
        row = start + tl.arange(0, ROWS)
        far = tl.where(leading[None, :], _apart(gram, row, column, size, points, root), float("inf"))
        nearest = leading[None, :] & (far == tl.min(far, axis=1)[:, None])
        leads_itself = tl.load(rank + first + row, mask=row < size, other=2147483647) < centres
        nearest = tl.where(leads_itself[:, None], column[None, :] == row[:, None], nearest)
        mine = tl.min(tl.where(nearest, place[None, :], 2147483647), axis=1)
        tl.store(number + first + row, mine.to(tl.int64), mask=row < size)
    tl.debug_barrier()
    others = tl.load(number + first + column, mask=there, other=-1)
    for start in range(0, size, ROWS):
        row = start + tl.arange(0, ROWS)
        own = tl.load(number + first + row, mask=row < size, other=-2)
        count = tl.sum((others[None, :] == own[:, None]).to(tl.int32), axis=1).to(tl.float32)
        if MEAN:
            weight = 1 / tl.maximum(count, 1.0)
        else:
            leads_itself = tl.load(rank + first + row, mask=row < size, other=2147483647) < centres
            weight = (1 - beta) / tl.maximum(count - 1, 1.0)
            weight = tl.where(leads_itself, tl.where(count > 1, beta, 1.0), weight)
        tl.store(share + first + row, weight, mask=row < size)


def density_peaks(
    gram: Tensor, table: Tensor, penalty: Tensor | None, width: int, ascending: bool, centre_weight: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`holitom.ops.density_groups.density_peaks`."""
    (groups, points, _), device = gram.shape, gram.device
    number, leads = (torch.empty(groups, points, dtype=torch.int64, device=device) for _ in range(2))
    density, score, share = (torch.empty(groups, points, dtype=torch.float32, device=device) for _ in range(3))
    rank = torch.empty(groups, points, dtype=torch.int32, device=device)
    costs = share if penalty is None else penalty.contiguous()
    given = (gram.contiguous(), table.contiguous(), costs, density, score, rank, number, share, leads)
    numbers = (points, float(width**0.5), centre_weight or 0.0)
    block = max(32, triton.next_power_of_2(points))
    options: dict[str, int] = {"COSTS": penalty is not None, "ASCENDING": ascending, "MEAN": centre_weight is None}
    options |= {"ROWS": max(1, 8192 // block), "BLOCK": block, "num_warps": 8}
    with torch.cuda.device_of(gram):
        _density_peaks[(groups,)](*given, *numbers, **options)
    return number, share, leads
