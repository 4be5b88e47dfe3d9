"""Rows of a batch as token maps: text stays, each video's span follows its Merge, rows are padded anew on the left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.edges import Shares, send
from holitom.merge import DROPPED, Merge
from holitom.runtime.mass import masses, may_merge


@dataclass(frozen=True, eq=False)
class Span:
    """One video's tokens in a row, and what becomes of them.

    Args:
        columns: (V,) int64, the row's columns of the span's tokens, in the order of the Merge's sources.
        blocks: (V,) int64, the column at which the contiguous run of visual tokens around each of them starts. Outputs
            stand in the run of their anchor, in the order of the Merge; text between runs stays where it is.
        merge: a map of V tokens.
        first: where the tokens are one run in order, its first column; columns and blocks may be on the CPU then.
    """

    columns: Tensor
    blocks: Tensor
    merge: Merge
    first: int | None = None

    @property
    def index(self) -> Tensor | slice:
        """The columns, as an index."""
        return self.columns if self.first is None else slice(self.first, self.first + len(self.columns))

    def columns_of(self, tokens: Tensor) -> Tensor:
        """The columns of some of the tokens, by their index."""
        return self.columns[tokens] if self.first is None else tokens + self.first


def row_merge(length: int, padding: int, spans: list[Span], device: torch.device) -> tuple[Merge, list[Tensor], Tensor]:
    """The map of a whole row: leading padding goes, text stays, spans follow their maps. No synchronisation.

    Where every span is one run, the order of the outputs follows from their number, and is found on the CPU.

    Args:
        length: the row's columns.
        padding: leading columns to drop.
        spans: the row's videos, in order.
        device: where the map is to be.

    Returns:
        A Merge of ``length`` sources; for each span the (M,) output columns of its outputs; (length,) those of the
        text, which are on the CPU with those of the spans where all these are one run.
    """
    known = all(span.first is not None for span in spans)
    where = torch.device("cpu") if known else device
    text_columns = _text_columns(length, padding, spans, where)
    keys = [text_columns]
    for span in spans:
        count, first = span.merge.outputs, span.first
        keys.append(span.blocks[span.merge.anchor] if first is None else text_columns.new_full((count,), first))
    order = torch.cat(keys).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=where)
    sizes = [len(text_columns), *(span.merge.outputs for span in spans)]
    text_places = torch.full((length,), DROPPED, dtype=torch.int64, device=where)
    text_places[text_columns] = rank[: len(text_columns)]
    places = torch.split(rank, sizes)[1:]
    lookups = [F.pad(place, (0, 1), value=DROPPED) for place in places]
    sent = [text_places, order, text_columns, *lookups]
    target, order, text_columns, *lookups = send(sent, device) if known else sent
    target = target.clone() if target is text_places else target
    weight = torch.ones(length, dtype=torch.float32, device=device)
    anchors, shares = [text_columns], []
    for span, lookup in zip(spans, lookups, strict=True):
        merge = span.merge
        target[span.index] = lookup[merge.target]
        weight[span.index] = merge.weight
        anchors.append(span.columns_of(merge.anchor))
        if merge.shares is not None:
            more = merge.shares
            shares.append((span.columns_of(more.source), lookup[more.output], more.weight))
    extra = Shares(*(torch.cat(parts) for parts in zip(*shares, strict=True))) if shares else None
    counts = [span.merge._kept for span in spans]
    kept = None if None in counts else len(text_columns) + sum(count for count in counts if count is not None)
    return Merge(target, weight, torch.cat(anchors)[order], extra)._knowing(kept), list(places), text_places


def _text_columns(length: int, padding: int, spans: list[Span], device: torch.device) -> Tensor:
    """The columns of a row that are neither padding nor of a span, ascending."""
    firsts = [span.first for span in spans if span.first is not None]
    if device.type == "cpu" and len(firsts) == len(spans):
        begins = [padding, *(first + len(span.columns) for first, span in zip(firsts, spans, strict=True))]
        return torch.cat([torch.arange(*each, device=device) for each in zip(begins, [*firsts, length], strict=True)])
    text = torch.zeros(length, dtype=torch.int8, device=device)
    text[:padding] = 1
    for span in spans:
        if span.first is None:
            text.index_fill_(0, span.columns, 1)
        else:
            text.narrow(0, span.first, span.columns.numel()).fill_(1)
    visual = sum(span.columns.numel() for span in spans)
    return text.argsort(stable=True)[: length - padding - visual]


@dataclass(frozen=True, eq=False)
class BatchMerge:
    """The maps of all rows of a batch, with outputs padded on the left to one length.

    Args:
        rows: a Merge for each row.
        length: the padded length L of the outputs.
    """

    rows: list[Merge]
    length: int

    @classmethod
    def of(cls, rows: list[Merge]) -> BatchMerge:
        """Pads to the longest row."""
        return cls(rows, max(row.outputs for row in rows))

    def apply(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (B, L, ...): merged rows; padding is 0."""
        if len(self.rows) == 1:
            return self.rows[0].apply(x[0])[None]
        out = x.new_zeros(len(self.rows), self.length, *x.shape[2:])
        for number, row in enumerate(self.rows):
            out[number, self.length - row.outputs :] = row.apply(x[number])
        return out

    def gather(self, x: Tensor) -> Tensor:
        """(B or 1, S, ...) -> (B, L, ...): each output takes its anchor's row; padding is 0 (False)."""
        if len(self.rows) == 1:
            return self.rows[0].gather(x[0])[None]
        out = x.new_zeros(len(self.rows), self.length, *x.shape[2:])
        for number, row in enumerate(self.rows):
            out[number, self.length - row.outputs :] = row.gather(x[number if x.shape[0] > 1 else 0])
        return out

    def mass(self, of: Tensor | None) -> Tensor | None:
        """(B, S) masses of tokens, or None where all are 1 -> (B, L), or None. Padding has mass 1."""
        if of is None and not any(map(may_merge, self.rows)):
            return None
        out = self.rows[0].weight.new_ones(len(self.rows), self.length)
        for number, row in enumerate(self.rows):
            out[number, self.length - row.outputs :] = masses(row, None if of is None else of[number])
        return out

    def gather_planes(self, x: Tensor, dims: int) -> Tensor:
        """:meth:`gather` of what may come in several planes.

        Args:
            x: position ids (B or 1, S) or (planes, B or 1, S); rotary embeddings (B, S, d) or (axes, B, S, d).
            dims: of one plane, 2 for position ids and 3 for rotary embeddings.
        """
        return self.gather(x) if x.dim() == dims else self.gather(x.movedim(0, -1)).movedim(-1, 0)
