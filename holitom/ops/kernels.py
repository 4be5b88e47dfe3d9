"""Kernels in Triton, for what would take many operations otherwise. :mod:`holitom.ops.accelerated` imports them where
they can run; each has plain operations elsewhere that give the same.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _pick_farthest(
    distance,
    start,
    weight,
    index,
    owner,
    left,
    tokens,
    count,
    positions,
    step,
    HEAVY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for each set; all that changes from pick to pick stays in its registers."""
    which = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    real = place < tokens
    nearest = tl.load(start + which * tokens + place, mask=real, other=0.0)
    heavy = tl.full([BLOCK], 1.0, tl.float32)
    if HEAVY:
        heavy = tl.load(weight + which * tokens + place, mask=real, other=0.0)
    frame = place // positions
    mine = tl.zeros([BLOCK], tl.int32)
    waits = real.to(tl.int32)  # 1 for a token that can still be picked
    for number in range(count):
        pick = tl.argmax(tl.where(waits == 1, nearest * heavy, float("-inf")), axis=0)
        tl.store(index + which * count + number, pick.to(tl.int64))
        row = distance + (which * tokens + pick) * tokens
        apart = tl.abs(frame - pick // positions).to(tl.float32)
        fresh = tl.load(row + place, mask=real, other=0.0) + step * apart
        nearer = (place == pick) | ((fresh < nearest) & (waits == 1))
        nearest = tl.where(nearer, fresh, nearest)
        mine = tl.where(nearer, number, mine)
        waits = tl.where(place == pick, 0, waits)
    tl.store(owner + which * tokens + place, mine.to(tl.int64), mask=real)
    tl.store(left + which * tokens + place, tl.where(waits == 1, nearest, 0.0), mask=real)


def pick_farthest(
    distance: Tensor, start: Tensor, weight: Tensor | None, count: int, positions: int, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`holitom.ops.farthest.pick_farthest`."""
    sets, tokens, _ = distance.shape
    index = torch.empty(sets, count, dtype=torch.int64, device=distance.device)
    owner = torch.empty(sets, tokens, dtype=torch.int64, device=distance.device)
    left = torch.empty(sets, tokens, dtype=torch.float32, device=distance.device)
    distance, start = distance.contiguous(), start.contiguous()
    given = (distance, start, start if weight is None else weight.contiguous(), index, owner, left)
    block = max(32, triton.next_power_of_2(tokens))
    options = {"HEAVY": weight is not None, "BLOCK": block, "num_warps": max(1, min(32, block // 256))}
    with torch.cuda.device_of(distance):
        _pick_farthest[(sets,)](*given, tokens, count, positions, float(step), **options)
    return index, owner, left


@triton.jit
def _rows(base, place, count, row_stride, channel_stride, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (n, WIDTH) at some places, 0 beyond the ``count`` rows and beyond their channels."""
    channel = tl.arange(0, WIDTH)
    address = base + place[:, None].to(tl.int64) * row_stride + channel[None, :] * channel_stride
    return tl.load(address, mask=(place < count)[:, None] & (channel < CHANNELS)[None, :], other=0.0)


@triton.jit
def _sound(short, row, tokens, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (n, WIDTH), 0 where one has a number that is not finite or there is none; and (n,) which have not."""
    rows = _rows(short, row, tokens, CHANNELS, 1, CHANNELS, WIDTH)
    sound = (tl.max(tl.where(tl.abs(rows) < float("inf"), 0, 1), axis=1) == 0) & (row < tokens)
    return tl.where(sound[:, None], rows, 0.0), sound


@triton.jit
def _directions(
    short, unit, weight, tokens, rounding, tiny, least, last,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program, four passes: the largest number, the mean, the mean norm, and the results."""
    place = tl.arange(0, BLOCK)
    channel = tl.arange(0, WIDTH)
    scale = tiny
    count = 0
    for first in range(0, tokens, BLOCK):
        rows, sound = _sound(short, first + place, tokens, CHANNELS, WIDTH)
        scale = tl.maximum(scale, tl.max(tl.max(tl.abs(rows), axis=1), axis=0))
        count += tl.sum(sound.to(tl.int32), axis=0)
    mean = tl.zeros([WIDTH], tl.float32)
    for first in range(0, tokens, BLOCK):
        rows, sound = _sound(short, first + place, tokens, CHANNELS, WIDTH)
        mean += tl.sum(rows / scale, axis=0)
    mean = mean / tl.maximum(count, 1).to(tl.float32)
    total = 0.0
    for first in range(0, tokens, BLOCK):
        rows, sound = _sound(short, first + place, tokens, CHANNELS, WIDTH)
        rows = tl.where(sound[:, None], rows / scale - mean[None, :], 0.0)
        norm = tl.sqrt(tl.sum(rows * rows, axis=1))
        total += tl.sum(tl.where(first + place < tokens, tl.where(norm > rounding, norm, tiny), 0.0), axis=0)
    for first in range(0, tokens, BLOCK):
        row = first + place
        rows, sound = _sound(short, row, tokens, CHANNELS, WIDTH)
        rows = tl.where(sound[:, None], rows / scale - mean[None, :], 0.0)
        norm = tl.sqrt(tl.sum(rows * rows, axis=1))
        known = norm > rounding
        heavy = tl.maximum(tl.where(known, norm, tiny) / (total / tokens), least)
        tl.store(weight + row, tl.where(sound, heavy, last), mask=row < tokens)
        inside = (row < tokens)[:, None] & (channel < CHANNELS)[None, :]
        rows = tl.where(known[:, None], rows / tl.where(known, norm, 1.0)[:, None], 0.0)
        tl.store(unit + row[:, None] * CHANNELS + channel[None, :], rows, mask=inside)


def directions(short: Tensor, rounding: float, tiny: float, least: float, last: float) -> tuple[Tensor, Tensor]:
    """See :func:`holitom.ops.spread.directions`."""
    short = short.contiguous()
    unit, weight = torch.empty_like(short), torch.empty_like(short[..., 0])
    channels, width = short.shape[-1], max(16, triton.next_power_of_2(short.shape[-1]))
    options = {"CHANNELS": channels, "WIDTH": width, "BLOCK": max(1, 16384 // width), "num_warps": 8}
    with torch.cuda.device_of(short):
        _directions[(1,)](short, unit, weight, weight.numel(), rounding, tiny, least, last, **options)
    return unit, weight


@triton.jit
def _log_sums(
    query, key, real, sums, heads, shared, queries, tokens, scale, query_frame, query_head, query_row, query_channel,
    key_frame, key_head, key_row, key_channel, MASKED: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The logarithm of the sum of the exponentials of each query's logits: a block of queries, all keys."""
    which = tl.program_id(0).to(tl.int64)
    frame, head = which // heads, which % heads
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    base = query + tl.multiple_of(frame * query_frame + head * query_head, ALIGNED)
    rows = _rows(base, row, queries, query_row, query_channel, CHANNELS, WIDTH)
    base = key + tl.multiple_of(frame * key_frame + (head // shared) * key_head, ALIGNED)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, tokens, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        columns = _rows(base, column, tokens, key_row, key_channel, CHANNELS, WIDTH)
        counts = column < tokens
        if MASKED:
            counts = tl.load(real + frame * tokens + column, mask=counts, other=0) != 0
        logits = tl.dot(rows, tl.trans(columns), input_precision=PRECISION) * scale
        logits = tl.where(counts[None, :], logits, float("-inf"))
        higher = tl.maximum(largest, tl.max(logits, axis=1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(logits - shift[:, None]), axis=1)
        largest = higher
    tl.store(sums + which * queries + row, largest + tl.log(total), mask=row < queries)


@triton.jit
def _column_sums(
    query, key, real, sums, reader, received, heads, shared, queries, tokens, scale, query_frame, query_head, query_row,
    query_channel, key_frame, key_head, key_row, key_channel, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The weighted sum of the softmax over all queries: for a block of keys."""
    which = tl.program_id(0).to(tl.int64)
    frame, head = which // heads, which % heads
    column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    base = key + tl.multiple_of(frame * key_frame + (head // shared) * key_head, ALIGNED)
    columns = _rows(base, column, tokens, key_row, key_channel, CHANNELS, WIDTH)
    base = query + tl.multiple_of(frame * query_frame + head * query_head, ALIGNED)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, queries, COLUMNS):
        row = first + tl.arange(0, COLUMNS)
        rows = _rows(base, row, queries, query_row, query_channel, CHANNELS, WIDTH)
        shift = tl.load(sums + which * queries + row, mask=row < queries, other=0.0)
        share = tl.load(reader + frame * queries + row, mask=row < queries, other=0.0)
        logits = tl.dot(columns, tl.trans(rows), input_precision=PRECISION) * scale
        total += tl.sum(tl.exp(logits - shift[None, :]) * share[None, :], axis=1)
    counts = column < tokens
    if MASKED:
        total = tl.where(tl.load(real + frame * tokens + column, mask=counts, other=0) != 0, total, 0.0)
    tl.store(received + which * tokens + column, total, mask=counts)


def column_sums(query: Tensor, key: Tensor, scale: float, reader: Tensor, real: Tensor | None) -> Tensor:
    """Softmax attention that each key receives from all queries of its head, without a matrix of it.

    Two passes over the logits: the sums of exponentials of each row, then the sums of each column.

    Args:
        query: (F, H, P, d) floating point, of any strides.
        key: (F, G, K, d), G divides H.
        scale: factor on the logits.
        reader: (F, P) float32, the weight of each query.
        real: (F, K) bool, the keys that count; None: all.

    Returns:
        (F, H, K) float32.
    """
    (frames, heads, queries, width), (_, groups, tokens, _) = query.shape, key.shape
    sums = torch.empty(frames * heads, queries, dtype=torch.float32, device=query.device)
    received = torch.empty(frames, heads, tokens, dtype=torch.float32, device=query.device)
    mask = sums if real is None else real.to(torch.uint8)
    numbers = (heads, heads // groups, queries, tokens, float(scale), *query.stride(), *key.stride())
    aligned = math.gcd(8, *query.stride()[:2], *key.stride()[:2])  # heads 72 wide start at multiples of 8, not of 16
    exact = query.dtype == torch.float32
    options = {
        "MASKED": real is not None,
        "PRECISION": "ieee" if exact else "tf32",
        "ALIGNED": aligned,
        "CHANNELS": width,
        "WIDTH": max(16, triton.next_power_of_2(width)),
        "ROWS": 64 if exact else 128,
        "COLUMNS": 32 if exact else 64,
        "num_warps": 4 if exact else 8,
    }
    rows = options["ROWS"]
    with torch.cuda.device_of(query):
        grid = (frames * heads, triton.cdiv(queries, rows))
        _log_sums[grid](query, key, mask, sums, *numbers, **options)
        grid = (frames * heads, triton.cdiv(tokens, rows))
        _column_sums[grid](query, key, mask, sums, reader.contiguous(), received, *numbers, **options)
    return received


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
        for turn in range(used):
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
    number, leads = torch.empty(2, groups, points, dtype=torch.int64, device=device)
    density, score, share = torch.empty(3, groups, points, dtype=torch.float32, device=device)
    rank = torch.empty(groups, points, dtype=torch.int32, device=device)
    costs = share if penalty is None else penalty.contiguous()
    given = (gram.contiguous(), table.contiguous(), costs, density, score, rank, number, share, leads)
    numbers = (points, float(width**0.5), centre_weight or 0.0)
    block = max(32, triton.next_power_of_2(points))
    options = {"COSTS": penalty is not None, "ASCENDING": ascending, "MEAN": centre_weight is None}
    options |= {"ROWS": max(1, 8192 // block), "BLOCK": block, "num_warps": 8}
    with torch.cuda.device_of(gram):
        _density_peaks[(groups,)](*given, *numbers, **options)
    return number, share, leads
