"""Picks of the farthest points, and the directions they are picked by."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.kernels.rows import load_rows


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
def _sound(short, row, tokens, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (n, WIDTH), 0 where one has a number that is not finite or there is none; and (n,) which have not."""
    rows = load_rows(short, row, tokens, CHANNELS, 1, CHANNELS, WIDTH)
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
