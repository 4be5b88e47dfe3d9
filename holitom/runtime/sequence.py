"""Rows of a batch as token maps: text stays, each video's span follows its Merge, rows are padded anew on the left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from holitom.edges import Shares
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
    """

    columns: Tensor
    blocks: Tensor
    merge: Merge


def row_merge(length: int, padding: int, spans: list[Span], device: torch.device) -> tuple[Merge, list[Tensor]]:
    """The map of a whole row: leading padding goes, text stays, spans follow their maps. No synchronisation.

    Args:
        length: the row's columns.
        padding: leading columns to drop.
        spans: the row's videos, with their maps.
        device: of the map.

    Returns:
        A Merge of ``length`` sources, and for each span the (M,) output columns of its outputs.
    """
    visual = sum(span.columns.numel() for span in spans)
    text = torch.zeros(length, dtype=torch.int8, device=device)
    text[:padding] = 1
    for span in spans:
        text.index_fill_(0, span.columns, 1)
    text_columns = text.argsort(stable=True)[: length - padding - visual]

    anchors = [text_columns, *(span.columns[span.merge.anchor] for span in spans)]
    keys = [text_columns, *(span.blocks[span.merge.anchor] for span in spans)]
    order = torch.cat(keys).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=device)

    target = torch.full((length,), DROPPED, dtype=torch.int64, device=device)
    weight = torch.ones(length, dtype=torch.float32, device=device)
    target[text_columns] = rank[: len(text_columns)]
    start, places, shares = len(text_columns), [], []
    for span in spans:
        merge = span.merge
        place = rank[start : start + merge.outputs]
        target[span.columns] = torch.where(merge.target >= 0, place[merge.target.clamp(min=0)], DROPPED)
        weight[span.columns] = merge.weight
        if merge.shares is not None:
            more = merge.shares
            shares.append((span.columns[more.source], place[more.output], more.weight))
        places.append(place)
        start += merge.outputs
    extra = Shares(*(torch.cat(parts) for parts in zip(*shares, strict=True))) if shares else None
    known = [span.merge._kept for span in spans]
    kept = None if None in known else len(text_columns) + sum(count for count in known if count is not None)
    return Merge(target, weight, torch.cat(anchors)[order], extra)._knowing(kept), places


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
        out = x.new_zeros(len(self.rows), self.length, *x.shape[2:])
        for number, row in enumerate(self.rows):
            out[number, self.length - row.outputs :] = row.apply(x[number])
        return out

    def gather(self, x: Tensor) -> Tensor:
        """(B or 1, S, ...) -> (B, L, ...): each output takes its anchor's row; padding is 0 (False)."""
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

    def gather_planes(self, x: Tensor) -> Tensor:
        """:meth:`gather` of what may come in several planes.

        Args:
            x: position ids (B or 1, S) or (planes, B or 1, S); rotary embeddings (B, S, d) or (axes, B, S, d).
        """
        if x.dim() == 4 or (x.dim() == 3 and not x.is_floating_point()):
            return torch.stack([self.gather(plane) for plane in x])
        return self.gather(x)
