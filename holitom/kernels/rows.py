"""Rows of features: sums along edges, and how alike neighbours in time are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def load_rows(base, place, count, row_stride, channel_stride, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (n, WIDTH) at some places, 0 beyond the ``count`` rows and beyond their channels."""
    channel = tl.arange(0, WIDTH)
    address = base + place[:, None].to(tl.int64) * row_stride + channel[None, :] * channel_stride
    return tl.load(address, mask=(place < count)[:, None] & (channel < CHANNELS)[None, :], other=0.0)


@triton.jit
def _sum_rows(rows, source, first, weight, sums, width, BLOCK: tl.constexpr):
    """Some channels of one output."""
    output = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < width
    start = tl.load(first + output).to(tl.int32)
    stop = tl.load(first + output + 1).to(tl.int32)
    total = tl.zeros([BLOCK], tl.float32)
    for edge in range(start, stop):
        row = tl.load(rows + tl.load(source + edge) * width + channel, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(weight + edge) * row
    tl.store(sums + output * width + channel, total.to(sums.dtype.element_ty), mask=inside)


def sum_rows(rows: Tensor, source: Tensor, first: Tensor, weight: Tensor, wide: bool = False) -> Tensor:
    """See :func:`holitom.edges.sum_rows`."""
    outputs, width = len(first) - 1, rows.shape[1]
    sums = torch.empty(outputs, width, dtype=torch.float32 if wide else rows.dtype, device=rows.device)
    given = (rows.contiguous(), source.contiguous(), first.contiguous(), weight.contiguous(), sums)
    block = min(1024, triton.next_power_of_2(width))
    with torch.cuda.device_of(rows):
        _sum_rows[(outputs, triton.cdiv(width, block))](*given, width, BLOCK=block, num_warps=4)
    return sums


@triton.jit
def _neighbour_cosine(rows, cosine, lag, width, tiny, BLOCK: tl.constexpr):
    """One row and the one ``lag`` rows later."""
    pair = tl.program_id(0).to(tl.int64)
    dots = tl.zeros([BLOCK], tl.float32)
    early = tl.zeros([BLOCK], tl.float32)
    late = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        x = tl.load(rows + pair * width + channel, mask=channel < width, other=0.0).to(tl.float32)
        y = tl.load(rows + (pair + lag) * width + channel, mask=channel < width, other=0.0).to(tl.float32)
        dots += x * y
        early += x * x
        late += y * y
    scale = tl.maximum(tl.sqrt(tl.sum(early, axis=0)) * tl.sqrt(tl.sum(late, axis=0)), tiny)
    value = tl.sum(dots, axis=0) / scale
    value = tl.where(value > 1.0, 1.0, tl.where(value < -1.0, -1.0, value))  # what is no number stays none
    tl.store(cosine + pair, value)


def neighbour_cosine(features: Tensor, step: int) -> Tensor:
    """See :func:`holitom.ops.similarity.neighbour_cosine`."""
    frames, positions, width = features.shape
    cosine = torch.empty(frames - step, positions, dtype=torch.float32, device=features.device)
    numbers = (step * positions, width, torch.finfo(torch.float32).tiny)
    block = min(1024, triton.next_power_of_2(width))
    with torch.cuda.device_of(features):
        _neighbour_cosine[(cosine.numel(),)](features.contiguous(), cosine, *numbers, BLOCK=block, num_warps=4)
    return cosine
