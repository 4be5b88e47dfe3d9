"""One call of the model under compression: what its hooks share, from its arguments to its last decoder layer."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from holitom.models.base import VideoLayout
from holitom.ops.ranking import last_query_attention, query_attention
from holitom.runtime.cache import CacheMemory, Stage, Unfinished
from holitom.runtime.lengths import cached_length, cut_static, fixed_length
from holitom.runtime.mass import weighed_mask
from holitom.runtime.records import InnerRecord, PromptRecord, VideoRecord
from holitom.runtime.sequence import BatchMerge, Span, row_merge
from holitom.runtime.thread import Generation, Given, Observer
from holitom.tokens import SpanStates

if TYPE_CHECKING:
    from holitom.runtime.session import Session


@dataclass(eq=False)
class VideoSpan:
    """A video's tokens on their way through the layers.

    Args:
        record: where to write down what happens to it.
        columns: (V,) int64, ascending columns of its tokens in the padded row as it is now.
        place: (V,) int64, flat position of each token's anchor; -1: not a patch.
        entered: tokens that entered the LLM.
        memory: the method's own.
    """

    record: VideoRecord
    columns: Tensor
    place: Tensor
    entered: int
    memory: dict[str, object] = field(default_factory=dict)


@dataclass(eq=False)
class Call(Given):
    """A call of the model in progress in one thread.

    Args:
        session: the one at work, to the end of the call.
        begun_by: the module whose call this is.
        outer: the call around this one (of another model), or None.
        generation: the ``generate()`` that makes it.
        ids: (B, Q) the ids that came.
        mask: the attention mask that came.
        labelled: whether labels came.
        layouts: the videos encoded for it; None: unknown.
        reads_prefix: whether it ends in front of the first inner stage (``prefix.py``).

    Attributes:
        decoder: its module; this and what follows is known from the decoder on.
        depth: its number of layers.
        cache: its KV cache, or None.
        memory: what is remembered with the cache (without one: for this call only); None: nothing is compressed.
        rows: B.
        came: tokens that came.
        width: Q, those of them that the layers work on now.
        new: (B, Q) bool, which of them are real; None: all.
        positions: (B, Q) or (3 or 4, B, Q) position ids of the new tokens.
        dropping: what the memory learns when the call has ended well.
        tail_tokens: those of its tokens that stand behind its last video; None: it has none.
        padding: for each row, the padding before its first new token.
        right: for each row, the padding after its last new token.
        tail: for each row, the columns after the token whose attention decides: padding on the right, and tokens
            generated after the prompt when there is no cache.
        spans: for each row, its videos' tokens; empty while decoding.
        prompts: for each row, its record; empty while decoding.
        attention: by row, the last prompt token's attention (Q,) in the layer before the coming inner stage.
        observers: by attention module.
        replaced: arguments of the coming layers that an inner stage has changed.
        unfinished: what these tokens are joined to in front of the first inner stage.
        mass: (B, Q) float32 masses of the new tokens (``mass.py``); None: all 1.
        weighed: a mask, a stage, and the mask with the stage's masses in it.
    """

    session: Session
    begun_by: nn.Module
    outer: Call | None = None
    generation: Generation | None = None
    ids: Tensor | None = None
    mask: Any = None
    labelled: bool = False
    layouts: list[VideoLayout] | None = None
    reads_prefix: bool = False

    decoder: Any = None
    depth: int = 0
    cache: Any = None
    memory: CacheMemory | None = None
    rows: int = 0
    came: int = 0
    width: int = 0
    new: Tensor | None = None
    positions: Tensor | None = None
    dropping: int = 0
    tail_tokens: int | None = None
    padding: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    spans: list[list[VideoSpan]] = field(default_factory=list)
    prompts: list[PromptRecord] = field(default_factory=list)
    attention: dict[int, Tensor] = field(default_factory=dict)
    observers: dict[nn.Module, Observer] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)
    unfinished: Unfinished | None = None
    mass: Tensor | None = None
    weighed: tuple[Any, Stage, Tensor] | None = None

    @property
    def merging(self) -> bool:
        """Whether this call holds videos that inner stages act on."""
        return any(self.spans)

    def stage(self, layer: int) -> Stage:
        """The stage that starts at ``layer``."""
        assert self.memory is not None
        return next(stage for stage in self.memory.stages if stage.layer == layer)

    def enter(self, layer: int) -> Stage:
        """The stage that starts at ``layer``, with the new tokens added to it."""
        assert self.memory is not None
        stage, starts = self.stage(layer), [each.layer for each in self.memory.stages]
        stage.grow(cached_length(self.cache, layer), self.new, self.rows, self.width)
        last = next((start for start in starts if start > layer), self.depth)
        if self.came > self.width:
            cut_static(self.cache, layer, last, self.came - self.width)
        fixed = fixed_length(self.cache, layer, last)
        if fixed is not None and stage.mask is not None:
            stage.know(stage.first(fixed))
        if layer and fixed != fixed_length(self.cache, layer - 1, layer):
            stage.shortened = True  # keys of another length than the stage before's need a mask of their own
        stage.weigh(stage.length - self.width, self.mass, self.rows)
        return stage

    def weigh(self, layer: int, mask: Any, hidden: Tensor) -> Any:
        """The mask of a layer with input (B, Q, D), with the masses of its keys where they have any."""
        assert self.memory is not None
        stage = [stage for stage in self.memory.stages if stage.layer <= layer][-1]
        if stage.mass is None:
            return mask
        if getattr(self.cache, "is_compileable", False):
            raise ValueError("mass=True needs the default (dynamic) cache: give no static one, or leave mass out")
        if self.weighed is None or self.weighed[0] is not mask or self.weighed[1] is not stage:
            self.weighed = mask, stage, weighed_mask(mask, stage.mass, stage.length, hidden)
        return self.weighed[2]

    def places(self, stage: Stage, device: torch.device) -> Tensor:
        """(B or 1, Q) int64: how many real tokens of the stage stand before each new one."""
        known = stage.first(stage.length)
        if known is None:
            return torch.arange(stage.length - self.width, stage.length, device=device)[None]
        return (known.cumsum(1)[:, -self.width :] - 1).clamp_(min=0)

    # attention of the last prompt token ---------------------------------------------------------------------------

    def observe_layers(self) -> None:
        """Sees the attention in front of each inner stage, where the method reads that."""
        session = self.session
        for layer in session.layers if session.method.attention in ("last", "text") else ():
            attention: Any = session.adapter.layers[layer - 1].self_attn
            self.observers[attention] = functools.partial(self.observe, layer - 1)

    def observe(self, layer: int, query: Tensor, key: Tensor, scale: float) -> None:
        """Takes from queries (B, H, Q, d) and keys (B, G, L, d) of ``layer`` what the next inner stage needs."""
        if not self.merging or query.shape[2] != self.width:
            return
        assert self.memory is not None
        stage = [stage for stage in self.memory.stages if stage.layer <= layer][-1]
        past = stage.length - query.shape[2] if key.shape[2] > query.shape[2] else 0
        known = stage.first(stage.length)
        if known is None:
            known = torch.ones(self.rows, stage.length, dtype=torch.bool, device=query.device)
        known = known[:, stage.length - past - query.shape[2] :].to(query.device)
        bias = known.new_zeros(known.shape, dtype=torch.float32)
        if stage.mass is not None:
            bias = pad(stage.mass, (0, stage.length - stage.mass.shape[1]))[:, -known.shape[1] :].to(query.device)
        here = 0 if self.unfinished is not None else past  # the spans' columns are counted from there
        for row, spans in enumerate(self.spans):
            if not spans:
                continue
            last = query.shape[2] - 1 - self.tail[row]
            end = past + last + 1
            if self.session.method.attention == "text":
                first = max(0, max(int(span.columns[-1]) for span in spans) + 1 - (past - here))
                if first > last:
                    continue
                attention = query_attention(
                    query[row, :, first : last + 1],
                    key[row, :, :end],
                    scale,
                    known[row, :end] & _causal(past + first, last + 1 - first, end, query.device),
                    bias[row, :end],
                )
                real = known[row, past + first : end]
                seen = attention.masked_fill(~real[None, :, None], 0.0).amax((0, 1))
                if self.unfinished is not None:  # text that was read with the video has looked at it too
                    seen[:past] = torch.maximum(seen[:past], self.unfinished.seen[row].to(seen.device))
            else:
                seen = last_query_attention(
                    query[row, :, last], key[row, :, :end], scale, known[row, :end], bias[row, :end]
                )
            self.attention[row] = pad(seen[here:], (0, self.tail[row]))

    # a question that comes after its video ----------------------------------------------------------------------

    def resume(self, unfinished: Unfinished) -> None:
        """Makes this call the one that completes a prefix."""
        self.spans, self.prompts = unfinished.spans, unfinished.prompts
        if unfinished.hidden is not None:
            self.unfinished, self.padding, self.right = unfinished, unfinished.padding, unfinished.between
            self.tail = [0] * self.rows

    def rejoin(self, hidden: Tensor, embeddings: Any) -> tuple[Tensor, Any]:
        """Puts the unfinished hidden states (B, C, D) in front of the call's own (B, Q, D); all else likewise."""
        before, self.unfinished = self.unfinished, None
        assert before is not None
        assert before.hidden is not None
        assert before.positions is not None
        assert self.positions is not None
        device, earlier = hidden.device, before.hidden.shape[1]
        if before.new is not None or self.new is not None:
            parts = ((before.new, earlier), (self.new, self.width))
            real = [
                torch.ones(self.rows, width, dtype=torch.bool, device="cpu") if new is None else new
                for new, width in parts
            ]
            self.new = torch.cat([new.to(device) for new in real], 1)
        if before.mass is not None:
            self.mass = pad(before.mass.to(device), (0, self.width), value=1.0)
        self.width += earlier
        own = self.positions.to(device)
        places = [before.positions.to(device), own.expand(*own.shape[:-2], self.rows, -1)]
        if len({each.shape[0] for each in places}) > 1:  # generate() gives mrope a plane of its own for text
            places = [each[-3:] for each in places]
        self.positions = torch.cat(places, -1)
        joined = tuple(
            torch.cat([first.to(device), then.expand(*first.shape[:-2], *then.shape[-2:])], -2)
            for first, then in zip(before.embeddings, embeddings, strict=True)
        )
        return torch.cat([before.hidden.to(device), hidden], 1), joined

    # the inner stage --------------------------------------------------------------------------------------------

    def merge_inside(self, layer: int, hidden: Tensor, embeddings: Any) -> tuple[Tensor, Any]:
        """Merges in front of ``layer``: hidden states (B, S, D) -> (B, S', D), rotary embeddings likewise.

        Where every map keeps every token, the rows are passed on as they are.
        """
        device, width = hidden.device, hidden.shape[1]
        rows = [[self._merge_span(span, row, layer, hidden) for span in spans] for row, spans in enumerate(self.spans)]
        self.attention.clear()
        if all(part.merge.outputs == part.merge.inputs for parts in rows for part in parts):
            return hidden, embeddings  # each output needs a source of its own, so nothing can have merged
        self.stage(layer).shortened = True
        merged = [row_merge(width, self.padding[row], parts, device) for row, parts in enumerate(rows)]
        batch = BatchMerge.of([merge for merge, *_ in merged])
        for row, (merge, places, _) in enumerate(merged):
            shift = batch.length - merge.outputs
            for span, columns in zip(self.spans[row], places, strict=True):
                order = columns.argsort()
                span.columns = columns[order] + shift
                span.place = span.place[span.record.inner[-1].merge.anchor][order]
        self.padding = [batch.length - merge.outputs for merge, *_ in merged]
        for prompt, (merge, *_), right in zip(self.prompts, merged, self.right, strict=True):
            prompt.by_layer[layer:] = [merge.outputs - right] * (self.depth - layer)
        if self.new is not None or any(self.padding):
            known = torch.ones(self.rows, width, dtype=torch.bool, device="cpu") if self.new is None else self.new
            self.new = batch.gather(known.to(device))
        self.mass = batch.mass(self.mass) if self.session.method.mass else None
        self.width = batch.length
        assert self.positions is not None
        self.positions = batch.gather_planes(self.positions.to(device), 2)
        return batch.apply(hidden), tuple(batch.gather_planes(part, 3) for part in embeddings)

    @torch.no_grad()
    def _merge_span(self, span: VideoSpan, row: int, layer: int, hidden: Tensor) -> Span:
        """Asks the method what becomes of one video in front of ``layer``."""
        span.columns, span.place = span.columns.to(hidden.device), span.place.to(hidden.device)
        seen = self.attention[row].to(hidden.device)[span.columns] if row in self.attention else None
        merge = self.session.method.merge_span(
            SpanStates(
                hidden=hidden[row, span.columns],
                attention=seen,
                layer=layer,
                depth=self.depth,
                place=span.place,
                frames=span.record.frames,
                grid=span.record.grid,
                entered=span.entered,
                memory=span.memory,
                text=self._text(row, hidden) if self.session.method.attention == "text" else None,
            )
        )
        span.record.inner.append(InnerRecord(layer, merge, seen, span.place))
        return Span(span.columns, span.columns, merge)

    def _text(self, row: int, hidden: Tensor) -> Tensor:
        """(L, D) states of a row's text behind its last video, up to the token whose attention decides."""
        columns = slice(max(int(span.columns[-1]) for span in self.spans[row]) + 1, hidden.shape[1] - self.tail[row])
        states = hidden[row, columns]
        return states if self.new is None else states[self.new[row, columns].to(hidden.device)]


def _causal(past: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """(Q, L) bool: query q stands at column past + q and sees keys up to there."""
    return torch.arange(keys, device=device)[None, :] <= torch.arange(past, past + queries, device=device)[:, None]
