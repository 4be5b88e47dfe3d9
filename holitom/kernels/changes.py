"""Where the rows of a vision tower begin."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _cut_positions(distance, threshold, begins, flags, frames, rows, columns, rings, BLOCK: tl.constexpr):
    """One program, frame by frame. What its threads tell each other goes through memory, with barriers between."""
    positions = rows * columns
    place = tl.arange(0, BLOCK)
    real = place < positions
    row = place // columns
    column = place % columns
    limit = tl.load(threshold)
    begin = tl.zeros([BLOCK], tl.int32)
    tl.store(begins + place, begin.to(tl.int64), mask=real)
    for now in range(1, frames):
        apart = tl.load(distance + (place.to(tl.int64) * frames + begin) * frames + now, mask=real, other=0.0)
        new = (apart > limit).to(tl.int32)
        if rings > 0:
            tl.store(flags + place, new, mask=real)
            tl.debug_barrier()
            for step in range(-rings, rings + 1):
                inside = real & (column + step >= 0) & (column + step < columns)
                new = new | tl.load(flags + place + step, mask=inside, other=0)
            tl.store(flags + positions + place, new, mask=real)
            tl.debug_barrier()
            for step in range(-rings, rings + 1):
                inside = real & (row + step >= 0) & (row + step < rows)
                new = new | tl.load(flags + positions + place + step * columns, mask=inside, other=0)
        begin = tl.where(new > 0, now, begin)
        tl.store(begins + now * positions + place, begin.to(tl.int64), mask=real)


def cut_positions(distances: Tensor, threshold: Tensor, rows: int, columns: int, rings: int) -> Tensor:
    """See :func:`holitom.ops.renewal.cut_positions`."""
    positions, frames, _ = distances.shape
    begins = torch.empty(frames, positions, dtype=torch.int64, device=distances.device)
    flags = torch.empty(2, positions, dtype=torch.int32, device=distances.device)
    block = max(32, triton.next_power_of_2(positions))
    options = {"BLOCK": block, "num_warps": max(1, min(32, block // 256)), "num_stages": 1}
    with torch.cuda.device_of(distances):
        _cut_positions[(1,)](distances.contiguous(), threshold, begins, flags, frames, rows, columns, rings, **options)
    return begins
