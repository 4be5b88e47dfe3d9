"""How alike a position is from one frame to the next."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from holitom import kernels

_CPU_CHUNK_BYTES = 1 << 21  # a chunk's product is summed while it is still in the cache
_DEVICE_CHUNK_BYTES = 1 << 28  # bounds the memory beside the features on an accelerator
_ROWS = 48  # of a block of products
_FEW = 1 << 14  # numbers that are multiplied in one block
_TINY = torch.finfo(torch.float32).tiny


def row_chunk(row_numbers: int, device: torch.device) -> int:
    """How many rows of ``row_numbers`` float32 numbers to work on at a time on a device."""
    budget = _CPU_CHUNK_BYTES if device.type == "cpu" else _DEVICE_CHUNK_BYTES
    return max(1, budget // (4 * max(1, row_numbers)))


def row_dots(x: Tensor, y: Tensor) -> Tensor:
    """Inner products of the rows of (R, D) and (R, D) as (R,) float32; for a chunk of rows, see :func:`row_chunk`."""
    if x.device.type == "cpu" and x.dtype == y.dtype == torch.float32:
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(np.vecdot(x.detach().numpy(), y.detach().numpy()))  # one pass, not torch's three
    return (x.float() * y.float()).sum(-1)


def products(x: Tensor) -> Tensor:
    """Inner products (n, n) of rows (n, D) with each other, exactly symmetric; on a CPU each pair's is taken once."""
    if x.device.type != "cpu" or x.numel() < _FEW:
        gram = x @ x.T
        return (gram + gram.T) / 2
    found = x.new_empty(len(x), len(x))
    size = math.ceil(len(x) / math.ceil(len(x) / _ROWS))
    for start in range(0, len(x), size):
        stop = start + size
        torch.mm(x[start:stop], x[start:].T, out=found[start:stop, start:])
        found[stop:, start:stop] = found[start:stop, stop:].T
        own = found[start:stop, start:stop]
        own.copy_(own.triu() + own.triu(1).T)
    return found


def row_norms(x: Tensor) -> Tensor:
    """Euclidean norms of rows (R, D) in float32 (R,), without a float32 copy of all of them."""
    if x.device.type != "cpu":
        lengths: Tensor = torch.linalg.vector_norm(x.detach(), dim=-1, dtype=torch.float32)
        return lengths
    norms = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    step = row_chunk(x.shape[1], x.device)
    for start in range(0, x.shape[0], step):
        part = x[start : start + step]
        norms[start : start + step] = row_dots(part, part)
    return norms.sqrt_()


def neighbour_cosine(features: Tensor, step: int = 1) -> Tensor:
    """Cosine similarity of each position with itself ``step`` frames later, in float32.

    Reads the features about twice and allocates no second copy of them.

    Args:
        features: (T, N, D) floating point.
        step: how many frames apart.

    Returns:
        (T - step, N) float32 in [-1, 1]; 0 where a token is zero. Empty when there are not enough frames.
    """
    features = features.detach()
    if len(features) <= step:
        return features.new_empty((0, features.shape[1]), dtype=torch.float32)
    if features.device.type == "cpu":
        return _cosine_on_cpu(features, step)
    if kernels.promised(features.device):
        found: Tensor = _neighbour_cosine(features, step)
        return found
    return _plain_cosine(features, step)


@torch.library.custom_op("holitom::neighbour_cosine", mutates_args=())
def _neighbour_cosine(features: Tensor, step: int) -> Tensor:
    module = kernels.find(features.device)
    if module is None or features.dtype == torch.float64:
        return (_cosine_on_cpu if features.device.type == "cpu" else _plain_cosine)(features, step)
    found: Tensor = module.neighbour_cosine(features, step)
    return found


@_neighbour_cosine.register_fake
def _(features: Tensor, step: int) -> Tensor:
    return features.new_empty(len(features) - step, features.shape[1], dtype=torch.float32)


def _cosine_on_cpu(features: Tensor, step: int) -> Tensor:
    """The products of a row with itself and with the later one are taken together, while it is in the cache."""
    frames, positions, width = features.shape
    dots = torch.empty(frames, positions, 2, dtype=torch.float32, device="cpu")
    block = positions if features.dtype == torch.float32 else row_chunk(frames * width, features.device)
    for start in range(0, positions, block):
        x, own = features[:, start : start + block].float().numpy(), dots[:, start : start + block].numpy()
        frame, row, channel = x.strides
        both = as_strided(x, (frames - step, x.shape[1], 2, width), (frame, row, step * frame, channel))
        with np.errstate(invalid="ignore"):
            np.vecdot(x[:-step, :, None], both, out=own[:-step])
            np.vecdot(x[-step:, :, None], x[-step:, :, None], out=own[-step:, :, :1])
    lengths = dots[..., 0].sqrt()
    return (dots[:-step, :, 1] / (lengths[:-step] * lengths[step:]).clamp_(min=_TINY)).clamp_(-1, 1)


def _plain_cosine(features: Tensor, step: int) -> Tensor:
    frames, positions, width = features.shape
    lag, rows, device = step * positions, features.reshape(-1, width), features.device
    dots, lengths = torch.empty(len(rows) - lag, dtype=torch.float32, device=device), row_norms(rows)
    chunk = row_chunk(width, device)
    for start in range(0, len(dots), chunk):
        wide = rows[start : start + lag + chunk].float()
        torch.sum(wide[:-lag] * wide[lag:], -1, out=dots[start : start + chunk])
    scale = (lengths[:-lag] * lengths[lag:]).clamp_(min=_TINY)
    return dots.div_(scale).clamp_(-1, 1).view(frames - step, positions)


def static_links(features: Tensor, similarity: float, bonus: Tensor | None = None) -> Tensor:
    """Where a position stays the same from one frame to the next: cosine strictly above ``similarity``.

    Args:
        features: (T, N, D) floating point.
        similarity: tau, compared in float32.
        bonus: (N,) float32, added to the cosines of each position; None: nothing.

    Returns:
        (T-1, N) bool. Source: HoliTom, section 3.2 (the threshold tau).
    """
    cosine = neighbour_cosine(features)
    return (cosine if bonus is None else cosine + bonus) > float(np.float32(similarity))
