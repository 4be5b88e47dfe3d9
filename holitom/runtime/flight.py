"""One forward pass of a decoder under compression: from its inputs, through the inner stages, to its last layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from holitom.methods.base import Method
from holitom.ops.ranking import last_query_attention, query_attention
from holitom.runtime.records import InnerRecord, PromptRecord, VideoRecord
from holitom.runtime.sequence import BatchMerge, Span, row_merge
from holitom.runtime.state import CacheState, Stage
from holitom.tokens import SpanStates


@dataclass(eq=False)
class LiveSpan:
    """A video's tokens on their way through the layers.

    Args:
        record: where to write down what happens to it.
        columns: (V,) int64, ascending columns of its tokens in the padded row as it is now.
        place: (V,) int64, flat position of each token's anchor; -1: not a patch.
        entered: tokens that entered the LLM. memory: the method's own.
    """

    record: VideoRecord
    columns: Tensor
    place: Tensor
    entered: int
    memory: dict[str, object] = field(default_factory=dict)


@dataclass(eq=False)
class Flight:
    """A decoder call in progress.

    Args:
        method: the method in force. decoder: the decoder. cache: its KV cache, or None.
        state: what is remembered with the cache (without one: for this call only).
        new: (B, Q) bool, real new tokens of the stage that is being processed.
        padding: for each row, the padding before its first new token.
        right: for each row, the padding after its last one.
        tail: for each row, the columns after the token whose attention decides: padding on the right, and tokens
            generated after the prompt when there is no cache.
        spans: for each row, its videos' tokens; empty while decoding.
        prompts: the rows' records; empty while decoding.
        positions: (B, Q) or (3 or 4, B, Q) position ids of the new tokens.
        attention: by row, the deciding token's attention (Q,) in the layer before the coming inner stage.
    """

    method: Method
    decoder: Any
    cache: Any
    state: CacheState
    new: Tensor
    positions: Tensor
    padding: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    spans: list[list[LiveSpan]] = field(default_factory=list)
    prompts: list[PromptRecord] = field(default_factory=list)
    attention: dict[int, Tensor] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)

    @property
    def merging(self) -> bool:
        """Whether this call holds videos that inner stages act on."""
        return any(self.spans)

    # attention of the deciding token ---------------------------------------------------------------------------

    def observe(self, query: Tensor, key: Tensor, scale: float, layer: int) -> None:
        """Takes from queries (B, H, Q, d) and keys (B, G, L, d) of ``layer`` what the next inner stage needs."""
        if not self.merging or query.shape[2] != self.new.shape[1]:
            return
        stage = [stage for stage in self.state.stages if stage.layer <= layer][-1]
        past = stage.mask.shape[1] - query.shape[2] if key.shape[2] > query.shape[2] else 0
        known = stage.mask[:, stage.mask.shape[1] - past - query.shape[2] :].to(query.device)
        for row, spans in enumerate(self.spans):
            if not spans:
                continue
            last = query.shape[2] - 1 - self.tail[row]
            end = past + last + 1
            if self.method.attention == "text":
                first = max(int(span.columns[-1]) for span in spans) + 1
                attention = query_attention(
                    query[row, :, first : last + 1],
                    key[row, :, :end],
                    scale,
                    known[row, :end] & _causal(past + first, last + 1 - first, end, query.device),
                )
                seen = attention.amax((0, 1))
            else:
                seen = last_query_attention(query[row, :, last], key[row, :, :end], scale, known[row, :end])
            self.attention[row] = torch.nn.functional.pad(seen[past:], (0, self.tail[row]))

    # the inner stage --------------------------------------------------------------------------------------------

    def merge_inside(self, layer: int, depth: int, hidden: Tensor, embeddings: Any) -> tuple[Tensor, Any]:
        """Merges in front of ``layer``: hidden states (B, S, D) -> (B, S', D), rotary embeddings likewise.

        Where every map keeps every token, the rows are passed on as they are.
        """
        device, width = hidden.device, hidden.shape[1]
        rows = []
        for row, spans in enumerate(self.spans):
            parts = []
            for span in spans:
                span.columns, span.place = span.columns.to(device), span.place.to(device)
                seen = self.attention[row].to(device)[span.columns] if row in self.attention else None
                merge = self.method.merge_span(
                    SpanStates(
                        hidden=hidden[row, span.columns],
                        attention=seen,
                        layer=layer,
                        depth=depth,
                        place=span.place,
                        frames=span.record.frames,
                        grid=span.record.grid,
                        entered=span.entered,
                        memory=span.memory,
                    )
                )
                span.record.inner.append(InnerRecord(layer, merge, seen, span.place))
                parts.append(Span(span.columns, span.columns, merge))
            rows.append(parts)
        self.attention.clear()
        if all(part.merge.outputs == part.merge.inputs for parts in rows for part in parts):
            return hidden, embeddings  # each output needs a source of its own, so nothing can have merged
        self.stage(layer).shortened = True
        merged = [row_merge(width, self.padding[row], parts, device) for row, parts in enumerate(rows)]
        batch = BatchMerge.of([merge for merge, _ in merged])
        for row, (merge, places) in enumerate(merged):
            shift = batch.length - merge.outputs
            for span, columns in zip(self.spans[row], places, strict=True):
                order = columns.argsort()
                span.columns = columns[order] + shift
                span.place = span.place[span.record.inner[-1].merge.anchor][order]
        self.padding = [batch.length - merge.outputs for merge, _ in merged]
        self.count(layer, depth, [merge.outputs - right for (merge, _), right in zip(merged, self.right, strict=True)])
        self.new = batch.gather(self.new.to(device))
        if self.positions.dim() == 2:
            self.positions = batch.gather(self.positions.to(device))
        else:
            self.positions = torch.stack([batch.gather(plane) for plane in self.positions.to(device)])
        return batch.apply(hidden), tuple(_gather(batch, part) for part in embeddings)

    def count(self, layer: int, depth: int, lengths: list[int]) -> None:
        """Writes down how many real tokens each row has from ``layer`` on."""
        for prompt, length in zip(self.prompts, lengths, strict=True):
            prompt.by_layer[layer:] = [length] * (depth - layer)

    def enter(self, layer: int) -> Stage:
        """The stage that starts at ``layer``, with the new tokens added to its mask."""
        stage = self.stage(layer)
        stage.mask = self.state.mask(stage, self.cache, self.new)
        return stage

    def stage(self, layer: int) -> Stage:
        """The stage that starts at ``layer``."""
        stage = next((stage for stage in self.state.stages if stage.layer == layer), None)
        if stage is None:
            stage = Stage(layer, self.new.new_zeros(self.new.shape[0], 0))
            self.state.stages.append(stage)
        return stage


def _gather(batch: BatchMerge, embeddings: Tensor) -> Tensor:
    """Rotary embeddings (B, S, d), or (axes, B, S, d) where the attention layers mix the axes."""
    if embeddings.dim() == 3:
        return batch.gather(embeddings)
    return torch.stack([batch.gather(axis) for axis in embeddings])


def _causal(past: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """(Q, L) bool: query q stands at column past + q and sees keys up to there."""
    return torch.arange(keys, device=device)[None, :] <= torch.arange(past, past + queries, device=device)[:, None]
