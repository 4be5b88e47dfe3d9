"""The one idea of this library: what a method does to visual tokens is a map from source tokens to output tokens.

A :class:`Merge` says for each of S source tokens which of M output tokens it goes to and with which share. Pruning,
averaging, clustering and pooling are all such maps, so applying, composing, drawing and testing them is written once,
here, for every method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import Shares, joined, sum_rows, sums_in_order

DROPPED = -1


@dataclass(frozen=True, eq=False)
class Merge:
    """A map from S source tokens to M output tokens.

    ``apply(x)[m] = sum of weight[s] * x[s] over target[s] == m``

    Args:
        target: (S,) int64, the output a source goes to; -1: dropped.
        weight: (S,) floating point, the source's share in that output; the weights of one output sum to 1. Kept as
            float32; ignored where the source is dropped.
        anchor: (M,) int64, the source whose place (order, position ids, row, frame) the output takes.
        shares: further shares for methods in which one source feeds several outputs, otherwise None.
        spans: the (first, last) frames of the segments that the method cut the video into, for reports and pictures;
            None for a method that cuts none.

    Raises:
        TypeError: when dtypes do not fit.
        ValueError: when shapes or devices do not fit. :meth:`validate` checks values, for which a GPU has to wait.
    """

    target: Tensor
    weight: Tensor
    anchor: Tensor
    shares: Shares | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    _kept: int | None = field(default=None, init=False, repr=False)  # sources not dropped; None: a GPU is asked for it
    _copies: bool = field(default=False, init=False, repr=False)  # every output is its anchor with a weight of 1

    def __post_init__(self) -> None:
        for name, tensor in (("target", self.target), ("anchor", self.anchor)):
            if tensor.dtype != torch.int64:
                raise TypeError(f"Merge.{name} holds indexes and must be int64, got {tensor.dtype}: use .long()")
            if tensor.dim() != 1:
                raise ValueError(f"Merge.{name} must have one dimension, got shape {tuple(tensor.shape)}")
        if self.weight.shape != self.target.shape:
            shapes = f"expected shape {tuple(self.target.shape)}, got {tuple(self.weight.shape)}"
            raise ValueError(f"Merge.weight needs one value per source: {shapes}")
        if not self.weight.is_floating_point():
            raise TypeError(f"Merge.weight must be floating point, got {self.weight.dtype}")
        if not self.target.device == self.weight.device == self.anchor.device:
            raise ValueError(
                "Merge keeps its tensors on one device, got "
                f"target on {self.target.device}, weight on {self.weight.device}, anchor on {self.anchor.device}"
            )
        if self.weight.dtype != torch.float32:
            object.__setattr__(self, "weight", self.weight.to(torch.float32))

    def _knowing(self, kept: int | None, copies: bool = False) -> Merge:
        """This map, of which its maker knows how many sources are not dropped, and whether it only copies."""
        object.__setattr__(self, "_kept", kept)
        object.__setattr__(self, "_copies", copies)
        return self

    @classmethod
    def identity(cls, tokens: int, device: torch.device | str = "cpu") -> Merge:
        """The map that keeps ``tokens`` tokens as they are."""
        places = torch.arange(tokens, device=device)
        return cls(places, torch.ones(tokens, dtype=torch.float32, device=device), places)._knowing(tokens, True)

    @classmethod
    def keep(cls, index: Tensor, sources: int) -> Merge:
        """Pure pruning: the sources ``index`` (M,), in this order, stay as they are; the others are dropped.

        Raises:
            TypeError: when ``index`` is not int64.
        """
        if index.dtype != torch.int64:
            raise TypeError(f"Merge.keep takes int64 indexes, got {index.dtype}: use .long() or mask.nonzero()[:, 0]")
        target = index.new_full((sources,), DROPPED)
        target[index] = torch.arange(len(index), device=index.device)
        weight = torch.ones(sources, dtype=torch.float32, device=index.device)
        return cls(target, weight, index)._knowing(len(index), True)

    @classmethod
    def averaging(cls, target: Tensor, anchor: Tensor, centre_weight: float | None, **options: Any) -> Merge:
        """A map whose outputs average their sources: centre_weight * anchor + (1 - centre_weight) * mean of the others.

        An output with one source is that source.

        Args:
            target: (S,) int64, the output a source goes to; -1: dropped.
            anchor: (M,) int64, one source of each output.
            centre_weight: in [0, 1]; None: the plain mean.
            options: further arguments of a Merge.
        """
        bare = cls(target, torch.empty(target.shape, dtype=torch.float32, device=target.device), anchor, **options)
        members = bare._in_bags[1].diff() - 1  # (M,), the anchor not among them
        if centre_weight is None:
            weight = (1 / (members + 1).float())[target]
        else:
            weight = ((1 - centre_weight) / members.clamp(min=1).float())[target]
            alone = torch.ones(len(anchor), dtype=torch.float32, device=anchor.device)
            weight[anchor] = alone.masked_fill_(members > 0, centre_weight)
        object.__setattr__(bare, "weight", weight)
        return bare

    @property
    def inputs(self) -> int:
        """S, the number of source tokens."""
        return self.target.numel()

    @property
    def outputs(self) -> int:
        """M, the number of output tokens."""
        return self.anchor.numel()

    @property
    def retention(self) -> float:
        """M / S (1.0 for an empty map)."""
        return self.outputs / self.inputs if self.inputs else 1.0

    def apply(self, x: Tensor) -> Tensor:
        """Moves token rows along the map.

        Args:
            x: (S, ...) one row per source token, any floating dtype.

        Returns:
            (M, ...) in the dtype of ``x``; sums are accumulated in float32 (float64 stays float64).
            A row with one source of weight 1 is that source, bit for bit.

        Raises:
            ValueError: when ``x`` does not have S rows.
        """
        if x.shape[0] != self.inputs:
            raise ValueError(f"this Merge maps {self.inputs} source tokens, got {x.shape[0]} rows: {tuple(x.shape)}")
        if not (self.outputs and self.inputs):
            return x[:0]
        rows = x.reshape(self.inputs, -1)
        if self._copies:
            return x[self.anchor]
        if self._kept == self.outputs and self.shares is None:  # each output has one source, its anchor
            wide = torch.promote_types(x.dtype, torch.float32)
            out = rows[self.anchor].to(wide).mul_(self.weight[self.anchor, None])
        elif x.device.type == "cpu" or (x.requires_grad and torch.is_grad_enabled()):
            out = sums_in_order(rows, *self._by_output, self.outputs)
        else:
            out = sum_rows(rows, *self._bags)
        return out.to(x.dtype).reshape(self.outputs, *x.shape[1:])

    @property
    def drops_none(self) -> bool:
        """Whether each source goes to one output. A GPU is asked, unless the map's maker knew."""
        return self.shares is None and (self._kept == self.inputs or not bool((self.target < 0).any()))

    def gather(self, x: Tensor) -> Tensor:
        """(S, ...) -> (M, ...): the rows of the anchors, for what cannot be averaged, as position ids."""
        return x[self.anchor]

    def expand(self, rows: Tensor) -> Tensor:
        """(M, ...) -> (S, ...): each source takes the row of the output that it went to.

        Raises:
            ValueError: for other than M rows, or where a source is dropped or feeds several outputs.
        """
        if not self.drops_none or rows.shape[0] != self.outputs:
            raise ValueError(f"{self!r} cannot expand {len(rows)} rows: it needs each source to go to one output")
        return rows[self.target]

    def compose(self, then: Merge) -> Merge:
        """This map followed by ``then``, as one map from this map's sources to the outputs of ``then``.

        Raises:
            ValueError: when ``then`` does not take as many sources as this map has outputs.
        """
        if then.inputs != self.outputs:
            raise ValueError(f"compose: {self.outputs} outputs do not fit the {then.inputs} sources of the next map")
        if self.shares is not None or then.shares is not None:
            edges = joined(self.edges(), then.edges(), then.inputs, then.outputs)  # every edge meets all that go on
            return Merge.from_edges(*edges, self.anchor[then.anchor], self.inputs)
        via = self.target.clamp(min=0)
        if not then.inputs:
            return Merge(self.target, self.weight, self.anchor)
        target = torch.where(self.target >= 0, then.target[via], self.target)
        return Merge(target, self.weight * then.weight[via], self.anchor[then.anchor])

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """All shares as edges: source (E,) int64, output (E,) int64, weight (E,) float32, in order of the source."""
        dropped = self.target < 0
        on_host = self._kept is None or dropped.device.type == "cpu"
        source = (~dropped).nonzero()[:, 0] if on_host else dropped.byte().argsort(stable=True)[: self._kept]
        output, weight = self.target[source], self.weight[source]
        if self.shares is None:
            return source, output, weight
        more = self.shares
        source = torch.cat([source, more.source])
        order = source.argsort(stable=True)
        output, weight = torch.cat([output, more.output]), torch.cat([weight, more.weight])
        return source[order], output[order], weight[order]

    @cached_property
    def _bags(self) -> tuple[Tensor, Tensor, Tensor]:
        """The edges' sources and weights, output by output, and (M + 1,) where those of each output begin: what is
        dropped comes behind the last beginning. No synchronisation."""
        order, first = self._in_bags
        if self.shares is None:
            return order, first, self.weight[order]
        source = torch.cat([torch.arange(self.inputs, device=order.device), self.shares.source])
        return source[order], first, torch.cat([self.weight, self.shares.weight])[order]

    @cached_property
    def _in_bags(self) -> tuple[Tensor, Tensor]:
        output = self.target if self.shares is None else torch.cat([self.target, self.shares.output])
        output, order = output.remainder(self.outputs + 1).sort(stable=True)  # -1: the last of all
        return order, torch.searchsorted(output, torch.arange(self.outputs + 1, device=output.device))

    @cached_property
    def _by_output(self) -> tuple[Tensor, Tensor, Tensor]:
        """The edges in order of the output, and of the source within one output: fixes the order of summation."""
        source, output, weight = self.edges()
        order = output.argsort(stable=True)
        return source[order], output[order], weight[order]

    @classmethod
    def from_edges(
        cls, source: Tensor, output: Tensor, weight: Tensor, anchor: Tensor, sources: int, distinct: int | None = None
    ) -> Merge:
        """A map from a list of E edges; the first edge of a source becomes its target, further ones its shares.

        Args:
            source: (E,) int64, a source token of each edge.
            output: (E,) int64, the output token it goes to.
            weight: (E,) floating point, its share in that output.
            anchor: (M,) int64, as of a Merge.
            sources: S, the number of source tokens.
            distinct: how many sources have edges, where that is known; else a GPU is asked for it.
        """
        source, order = source.sort(stable=True)
        output, weight = output[order], weight[order].float()
        again = F.pad(source[1:] == source[:-1], (min(1, len(source)), 0))
        own = source.masked_fill(again, sources)  # the last place takes what is not a source's first
        target = source.new_full((sources + 1,), DROPPED).scatter_(0, own, output)[:-1]
        share = weight.new_zeros(sources + 1).scatter_(0, own, weight)[:-1]
        known = None if distinct is None else len(source) - distinct
        rest = again.nonzero()[:, 0] if known is None else again.byte().argsort(descending=True, stable=True)[:known]
        more = Shares(source[rest], output[rest], weight[rest]) if len(rest) else None
        return cls(target, share, anchor, more)._knowing(distinct)

    def sources(self, output: int) -> tuple[Tensor, Tensor]:
        """The sources of one output: (k,) int64 indexes ascending, (k,) float32 weights.

        Raises:
            IndexError: when there is no such output.
        """
        if not 0 <= output < self.outputs:
            raise IndexError(f"output {output} does not exist: this Merge has outputs 0..{self.outputs - 1}")
        source, target, weight = self.edges()
        mine = target == output
        return source[mine], weight[mine]

    def to(self, device: torch.device | str) -> Merge:
        """The same map on another device; nobody waits for one that goes to a GPU."""
        early, more = torch.device(device).type != "cpu", self.shares
        tensors = [self.target, self.weight, self.anchor, *((more.source, more.output, more.weight) if more else ())]
        target, weight, anchor, *edges = (tensor.to(device, non_blocking=early) for tensor in tensors)
        kept = int((self.target >= 0).sum()) if self.target.device.type == "cpu" else self._kept
        return Merge(target, weight, anchor, Shares(*edges) if more else None, self.spans)._knowing(kept)

    def validate(self, normalised: bool = True, tolerance: float = 1e-4) -> Merge:
        """Checks the values (a GPU has to wait for it) and returns the map itself.

        Args:
            normalised: also check that the weights of every output sum to 1.
            tolerance: the largest accepted deviation of such a sum.

        Raises:
            ValueError: naming the first source or output that is wrong.
        """
        low, high = (int(self.target.min()), int(self.target.max())) if self.inputs else (DROPPED, DROPPED)
        if low < DROPPED or high >= self.outputs:
            raise ValueError(f"Merge.target must lie in -1..{self.outputs - 1}, got values from {low} to {high}")
        if self.outputs and (int(self.anchor.min()) < 0 or int(self.anchor.max()) >= self.inputs):
            raise ValueError(f"Merge.anchor must name sources 0..{self.inputs - 1}, got {self.anchor.tolist()[:8]}...")
        source, output, weight = self.edges()
        if not torch.isfinite(weight).all():
            raise ValueError("Merge.weight holds values that are not finite")
        own = torch.zeros(self.outputs, dtype=torch.bool, device=self.anchor.device)
        own[output[source == self.anchor[output]]] = True
        if not own.all():
            worst = int((~own).nonzero()[0])
            raise ValueError(f"output {worst}: its anchor {int(self.anchor[worst])} is not one of its sources")
        if normalised:
            sums = torch.zeros(self.outputs, dtype=torch.float64, device=weight.device)
            sums.index_add_(0, output, weight.double())
            off = (sums - 1).abs() > tolerance
            if off.any():
                worst = int(off.nonzero()[0])
                raise ValueError(f"the weights of output {worst} sum to {float(sums[worst]):.6f}, expected 1")
        return self

    def __repr__(self) -> str:
        return f"Merge({self.inputs} -> {self.outputs} tokens, {self.retention:.1%})"

    def _repr_html_(self) -> str:
        from holitom.report.reprs import merge_html  # only where a notebook asks for a picture

        return merge_html(self)
