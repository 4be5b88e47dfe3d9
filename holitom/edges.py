"""Weighted edges from rows to rows, as three tensors: where each comes from, where it goes to, and its weight."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom import kernels

_CHUNK_BYTES = 1 << 21  # rows copied at a time on a CPU, so that they are added while still in its cache
_WIDE = 256  # channels from which on making a sparse matrix takes less than it saves
Edges = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of source tokens in output tokens beyond their first one, as a list of E edges.

    Only methods in which a source feeds several outputs need it (FastVID's anchor frames draw on one common pool).

    Args:
        source: (E,) int64, source indexes.
        output: (E,) int64, output indexes.
        weight: (E,) float32, the share of the source in that output.
    """

    source: Tensor
    output: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        if not (self.source.shape == self.output.shape == self.weight.shape and self.source.dim() == 1):
            raise ValueError(
                "Shares takes three tensors of one length (E,), got "
                f"{tuple(self.source.shape)}, {tuple(self.output.shape)} and {tuple(self.weight.shape)}"
            )


def sums_in_order(rows: Tensor, source: Tensor, output: Tensor, weight: Tensor, outputs: int) -> Tensor:
    """Weighted sums of rows, of edges in order of the output.

    Args:
        rows: (S, D) floating point.
        source: (E,) int64.
        output: (E,) int64, ascending.
        weight: (E,) float32.
        outputs: M.

    Returns:
        (M, D) float32, or float64 for such rows.
    """
    wide = torch.promote_types(rows.dtype, torch.float32)
    if rows.dtype != wide and rows.device.type == "cpu":
        out = torch.zeros(outputs, rows.shape[1], dtype=wide, device="cpu")
        step = max(1, _CHUNK_BYTES // (4 * rows.shape[1]))
        for start in range(0, len(source), step):
            part = slice(start, start + step)
            out.index_add_(0, output[part], rows[source[part]].to(wide) * weight[part, None])
        return out
    if rows.dtype != wide:
        rows, source = rows[source].to(wide), torch.arange(len(source), device=rows.device)
    weight, first = weight.to(wide), torch.searchsorted(output, torch.arange(outputs + 1, device=rows.device))
    learns, wide_enough = rows.requires_grad and torch.is_grad_enabled(), rows.shape[1] >= _WIDE
    if len(source) and wide_enough and not learns and _has_sparse_products(rows.device):
        # reads each row once from its beginning to its end; embedding_bag goes through the rows of an output in slices
        shape, sums = (outputs, len(rows)), rows.new_empty(outputs, rows.shape[1])
        edges = torch.sparse_csr_tensor(first, source, weight, shape, device=rows.device, check_invariants=False)
        return torch.addmm(sums, edges, rows.detach(), beta=0, out=sums)
    return F.embedding_bag(source, rows, first[:-1], mode="sum", per_sample_weights=weight)


@cache
def _has_sparse_products(device: torch.device) -> bool:
    """Whether MKL multiplies sparse matrices with rows on a device. The first sparse matrix warns that it is new."""
    if device.type != "cpu" or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.empty(0, dtype=torch.int64, device="cpu")
        torch.sparse_csr_tensor(torch.tensor([0, 0], device="cpu"), none, none.float(), (1, 1), device="cpu")
    return True


@torch.library.custom_op("holitom::sum_rows", mutates_args=())
def sum_rows(rows: Tensor, source: Tensor, first: Tensor, weight: Tensor, wide: bool = False) -> Tensor:
    """Weighted sums of rows, of edges that stand output by output, on an accelerator. Not to be differentiated.

    Args:
        rows: (S, D) floating point.
        source: (E,) int64.
        first: (M + 1,) int64, the first edge of each output and the end of the last one; what follows has no part.
        weight: (E,) float32.
        wide: return the sums as they were added up.

    Returns:
        (M, D) of the rows' dtype, added up in float32 (float64 stays float64). No synchronisation.
    """
    module = kernels.find(rows.device)
    if module is not None and rows.dtype != torch.float64:
        found: Tensor = module.sum_rows(rows, source, first, weight, wide)
        return found
    added, weight = (part.to(torch.promote_types(rows.dtype, torch.float32)) for part in (rows, weight))
    # on a GPU the last bag holds all that follows, wherever it is said to end
    ends = torch.cat([first, first.new_full((1,), len(source))])
    sums = F.embedding_bag(source, added, ends, mode="sum", per_sample_weights=weight, include_last_offset=True)[:-1]
    return sums.clone() if wide else sums.to(rows.dtype, copy=True)


@sum_rows.register_fake
def _(rows: Tensor, source: Tensor, first: Tensor, weight: Tensor, wide: bool = False) -> Tensor:
    dtype = torch.promote_types(rows.dtype, torch.float32) if wide else rows.dtype
    return rows.new_empty(len(first) - 1, rows.shape[1], dtype=dtype)


def in_order(origin: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Numbers rows, each known by one of its sources, in the order of these.

    Args:
        origin: (S,) int64, for each source the one that its row is known by, whose own origin is itself.
        count: R, how many rows there are.

    Returns:
        (S,) int64, the row of each source; (R,) int64, ascending, what each is known by. No synchronisation.
    """
    rank = (origin == torch.arange(len(origin), device=origin.device)).cumsum(0)
    return rank[origin] - 1, torch.searchsorted(rank, torch.arange(1, count + 1, device=origin.device))


def joined(edges: Edges, onward: Edges, between: int, outputs: int) -> Edges:
    """Every edge meets all edges that go on from where it leads; those between the same rows become one.

    Args:
        edges: from S sources to B rows between.
        onward: from these rows, in their order, to M outputs.
        between: B.
        outputs: M.

    Returns:
        Edges from sources to outputs, the weights in float64.
    """
    (source, middle, weight), (via, output, onward_weight) = edges, onward
    degree = torch.zeros(between, dtype=torch.int64, device=via.device).index_add_(0, via, torch.ones_like(via))
    first = degree.cumsum(0) - degree
    copies = degree[middle]
    edge = torch.repeat_interleave(copies)
    met = first[middle[edge]] + torch.arange(len(edge), device=edge.device) - (copies.cumsum(0) - copies)[edge]
    pair, same = torch.unique(source[edge] * outputs + output[met], return_inverse=True)
    total = torch.zeros(len(pair), dtype=torch.float64, device=pair.device)
    total.index_add_(0, same, weight[edge].double() * onward_weight[met].double())
    return pair // outputs, pair % outputs, total


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Several int64 tensors from the host to a device in one copy. Nobody waits for it."""
    if device.type == "cpu":
        return list(tensors)
    both = torch.cat([tensor.flatten() for tensor in tensors]).to(device, non_blocking=True)
    parts = torch.split(both, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
