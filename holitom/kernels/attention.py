"""Statistics of attention without its matrix."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.kernels.rows import load_rows


@triton.jit
def _log_sums(
    query, key, real, sums, heads, shared, queries, tokens, scale, query_frame, query_head, query_row, query_channel,
    key_frame, key_head, key_row, key_channel, MASKED: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The logarithm of the sum of the exponentials of each query's logits: a block of queries, all keys."""
    which = tl.program_id(0).to(tl.int64)
    frame, head = which // heads, which % heads
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    base = query + tl.multiple_of(frame * query_frame + head * query_head, ALIGNED)
    rows = load_rows(base, row, queries, query_row, query_channel, CHANNELS, WIDTH)
    base = key + tl.multiple_of(frame * key_frame + (head // shared) * key_head, ALIGNED)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, tokens, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        columns = load_rows(base, column, tokens, key_row, key_channel, CHANNELS, WIDTH)
        counts = column < tokens
        if MASKED:
            counts = tl.load(real + frame * tokens + column, mask=counts, other=0) != 0
        logits = tl.dot(rows, tl.trans(columns)) * scale
        logits = tl.where(counts[None, :], logits, float("-inf"))
        higher = tl.maximum(largest, tl.max(logits, axis=1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(logits - shift[:, None]), axis=1)
        largest = higher
    tl.store(sums + which * queries + row, largest + tl.log(total), mask=row < queries)


@triton.jit
def _column_sums(
    query, key, real, sums, reader, received, heads, shared, queries, tokens, scale, query_frame, query_head, query_row,
    query_channel, key_frame, key_head, key_row, key_channel, MASKED: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The weighted sum of the softmax over all queries: for a block of keys."""
    which = tl.program_id(0).to(tl.int64)
    frame, head = which // heads, which % heads
    column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    base = key + tl.multiple_of(frame * key_frame + (head // shared) * key_head, ALIGNED)
    columns = load_rows(base, column, tokens, key_row, key_channel, CHANNELS, WIDTH)
    base = query + tl.multiple_of(frame * query_frame + head * query_head, ALIGNED)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, queries, COLUMNS):
        row = first + tl.arange(0, COLUMNS)
        rows = load_rows(base, row, queries, query_row, query_channel, CHANNELS, WIDTH)
        shift = tl.load(sums + which * queries + row, mask=row < queries, other=0.0)
        share = tl.load(reader + frame * queries + row, mask=row < queries, other=0.0)
        logits = tl.dot(columns, tl.trans(rows)) * scale
        total += tl.sum(tl.exp(logits - shift[None, :]) * share[None, :], axis=1)
    counts = column < tokens
    if MASKED:
        total = tl.where(tl.load(real + frame * tokens + column, mask=counts, other=0) != 0, total, 0.0)
    tl.store(received + which * tokens + column, total, mask=counts)


def column_sums(query: Tensor, key: Tensor, scale: float, reader: Tensor, real: Tensor | None) -> Tensor:
    """Softmax attention that each key receives from all queries of its head, without a matrix of it.

    Two passes over the logits: the sums of exponentials of each row, then the sums of each column.

    Args:
        query: (F, H, P, d) float16 or bfloat16, of any strides.
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
    options = {
        "MASKED": real is not None,
        "ALIGNED": aligned,
        "CHANNELS": width,
        "WIDTH": max(16, triton.next_power_of_2(width)),
        "ROWS": 128,
        "COLUMNS": 64,
        "num_warps": 8,
    }
    rows = options["ROWS"]
    with torch.cuda.device_of(query):
        grid = (frames * heads, triton.cdiv(queries, rows))
        _log_sums[grid](query, key, mask, sums, *numbers, **options)
        grid = (frames * heads, triton.cdiv(tokens, rows))
        _column_sums[grid](query, key, mask, sums, reader.contiguous(), received, *numbers, **options)
    return received
