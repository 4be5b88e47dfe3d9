"""The hook in front of the decoder, where videos are found, merged and given their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.models.base import VideoLayout
from holitom.models.caching import cache_argument, cache_in
from holitom.runtime.flight import Flight, LiveSpan
from holitom.runtime.locate import Located, locate, padding_of
from holitom.runtime.records import PromptRecord, VideoRecord
from holitom.runtime.sequence import BatchMerge, Span, row_merge
from holitom.runtime.state import CacheState, cached_length, new_tokens
from holitom.tokens import VideoTokens

if TYPE_CHECKING:
    from holitom.runtime.session import Session


class DecoderHook:
    """In front of the decoder: merges videos, drops what they no longer need, gives every token its place."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(
        self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """Replaces the decoder's keyword arguments; None leaves the call as it is."""
        session = self.session
        session.flight = None
        if not session.active:
            return None
        embeds = kwargs.get("inputs_embeds")
        if args or embeds is None:
            return None  # somebody calls the language model alone, with ids: nothing visual in it
        cache = self._cache(decoder, kwargs)
        state = session.states.get(cache) if cache is not None else None
        mask = self._mask(kwargs, cache)
        new = new_tokens(mask, embeds)
        found = self._find(embeds, new, cache)
        if found is None:
            if state is None:
                return None
            return args, self._go_on(decoder, kwargs, cache, state, new)
        with session.stage("compression"):
            if state is None:
                state = CacheState.begin(cache, mask, new, (0, *session.layers))
            changed = self._compress(decoder, kwargs, cache, state, new, *found)
        if session.labelled and (session.layers or (changed and changed["inputs_embeds"].shape != embeds.shape)):
            raise ValueError(
                "labels= have one entry for each token of the full prompt, of which compression leaves fewer: take the "
                "logits and compute the loss of the answer's tokens from them, or leave the session for this call"
            )
        return None if changed is None else (args, changed)

    def _cache(self, decoder: Any, kwargs: dict[str, Any]) -> Any:
        """The call's KV cache; made here where the decoder would make one, so that its state can be kept with it."""
        cache, use = cache_in(kwargs), kwargs.get("use_cache")
        if cache is None and (getattr(decoder.config, "use_cache", True) if use is None else use):
            from transformers import DynamicCache

            cache = kwargs[cache_argument(decoder.forward)] = DynamicCache(config=decoder.config)
        return cache

    def _mask(self, kwargs: dict[str, Any], cache: Any) -> Any:
        """The flattest mask that is known of this call: the model's, else the decoder's, else what generate() got."""
        if self.session.mask is not None:
            return self.session.mask
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, dict):
            return mask
        if not getattr(cache, "is_compileable", False) and cached_length(cache, 0):
            return self.session.prompt_mask  # masks made for a cache that grows say too little about its new tokens
        return mask.get("full_attention")

    def _find(
        self, embeds: Tensor, new: Tensor, cache: Any
    ) -> tuple[list[list[Located]], list[int], list[int], list[int]] | None:
        """The videos of this call's rows, their padding before and after, and the columns after the deciding token."""
        session = self.session
        ids = session.input_ids
        if ids is None or ids.shape != embeds.shape[:2] or embeds.shape[1] == 1:
            return None
        ids, valid = ids.cpu(), new.cpu()
        beyond = min(ids.shape[1], self._beyond_prompt(ids.shape[1], cache))
        asked = valid.clone()
        asked[:, ids.shape[1] - beyond :] = False  # prompt lookup proposes placeholders that stand for nothing
        rows = locate(*session.adapter.arrange(ids, asked, session.layouts))
        if not any(rows):
            return None
        padding, right = padding_of(valid)
        return rows, padding, right, [max(beyond, after) for after in right]

    def _beyond_prompt(self, width: int, cache: Any) -> int:
        """How many of this call's columns generate() has put behind its prompt."""
        prompt = self.session.prompt_columns
        if prompt is None:
            return 0
        if width >= prompt:
            return width - prompt
        return max(0, width + int(cache.get_seq_length()) - prompt) if cache is not None else 0

    def _compress(
        self,
        decoder: Any,
        kwargs: dict[str, Any],
        cache: Any,
        state: CacheState,
        new: Tensor,
        rows: list[list[Located]],
        padding: list[int],
        right: list[int],
        tail: list[int],
    ) -> dict[str, Any] | None:
        session, embeds, device = self.session, kwargs["inputs_embeds"], kwargs["inputs_embeds"].device
        width, depth = embeds.shape[1], len(session.adapter.layers)
        if session.holding is not None:
            session.holding.see(kwargs)
        maps, live, prompts = [], [], []
        known: dict[VideoLayout, Merge] = {}  # rows repeated for beams share their videos
        for row, videos in enumerate(rows):
            prompt = PromptRecord(row, width - padding[row] - right[row], [0] * depth)
            parts = []
            for video in videos:
                layout = video.layout
                columns, blocks = (part.to(device, non_blocking=True) for part in video.patches)
                merge = known.get(layout)
                if merge is None:
                    merge = known[layout] = self._merge(embeds[row, columns], layout)
                parts.append(Span(columns, blocks, merge))
                whole = merge if layout.merged is None else layout.merged
                prompt.tokens += whole.inputs - merge.inputs
                record = VideoRecord(row, layout.frames, layout.grid, whole, scores=layout.scores)
                record.newlines = int((layout.place < 0).sum())
                prompt.videos.append(record)
            merge, places = row_merge(width, padding[row], parts, device)
            maps.append(merge)
            prompts.append(prompt)
            live.append(
                [
                    self._live(video, record, merge, part, place)
                    for video, record, part, place in zip(videos, prompt.videos, parts, places, strict=True)
                ]
            )
        batch = BatchMerge.of(maps)
        fresh = cache is None or cache not in session.states
        untouched = fresh and all(
            merge.outputs == merge.inputs and bool((merge.anchor.diff() > 0).all()) for merge in known.values()
        )
        session.remember(prompts)
        for prompt, merge, after in zip(prompts, maps, right, strict=True):
            prompt.by_layer[:] = [merge.outputs - after] * depth
        if untouched:
            batch = BatchMerge([Merge.identity(width, device) for _ in maps], width)
        if untouched and not session.layers:
            return None
        for row, spans in enumerate(live):
            for span in spans:
                span.columns = span.columns + (padding[row] if untouched else batch.length - maps[row].outputs)
        if cache is not None:
            session.states[cache] = state
        flight = Flight(session.method, decoder, cache, state, batch.gather(new), self._positions(kwargs, batch))
        flight.padding = padding if untouched else [batch.length - merge.outputs for merge in maps]
        flight.right, flight.tail, flight.spans, flight.prompts = right, tail, live, prompts
        session.flight = flight
        if untouched:
            state.stages[0].mask = state.mask(state.stages[0], cache, flight.new)
            return None
        if cache is not None:
            state.dropped += width - batch.length
            state.cover(cache)
        return self._enter(flight, {**self._move(kwargs, batch, width), "inputs_embeds": batch.apply(embeds)})

    def _merge(self, features: Tensor, layout: VideoLayout) -> Merge:
        """The method's Merge for one video's features (T*N, D); what was merged before the call stays as it is."""
        if layout.merged is not None:
            return Merge.identity(len(features), features.device)
        on = {name: getattr(layout, name) for name in ("scores", "keys", "frame_embeddings")}
        tokens = VideoTokens(
            features.view(layout.frames, -1, features.shape[-1]),
            layout.grid,
            **{name: None if value is None else value.to(features.device) for name, value in on.items()},
        )
        return self.session.method.merge_video(tokens)

    def _live(self, video: Located, record: VideoRecord, row: Merge, part: Span, places: Tensor) -> LiveSpan:
        """The video's tokens as they now stand in the unpadded row: merged patches and newlines."""
        device = places.device
        newline = video.columns[video.layout.place < 0].to(device, non_blocking=True)
        columns = torch.cat([places, row.target[newline]])
        merged = video.layout.merged
        anchor = part.merge.anchor if merged is None else merged.anchor.to(device)[part.merge.anchor]
        place = torch.cat([anchor, newline.new_full(newline.shape, -1)])
        order = columns.argsort()
        return LiveSpan(record, columns[order], place[order], entered=columns.numel())

    def _positions(self, kwargs: dict[str, Any], batch: BatchMerge) -> Tensor:
        """The position ids that came in, at each output's anchor."""
        given: Tensor | None = kwargs.get("position_ids")
        if given is None:
            width = kwargs["inputs_embeds"].shape[1]
            given = torch.arange(width, device=kwargs["inputs_embeds"].device)[None]
        if given.dim() == 2:
            return batch.gather(given)
        return torch.stack([batch.gather(plane) for plane in given])

    def _move(self, kwargs: dict[str, Any], batch: BatchMerge, width: int) -> dict[str, Any]:
        """Further arguments with one row per token follow the map."""
        return self.session.adapter.move_arguments(kwargs, batch.apply, batch.gather, width)

    def _go_on(
        self, decoder: Any, kwargs: dict[str, Any], cache: Any, state: CacheState, new: Tensor
    ) -> dict[str, Any]:
        """A call without new videos on a cache that holds compressed ones: decoding, or a further turn of text."""
        positions = state.places(kwargs.get("position_ids"), new)
        self.session.flight = flight = Flight(self.session.method, decoder, cache, state, new, positions)
        if state.waiting is not None:
            flight.resume(state.waiting)
            state.waiting = None
        return self._enter(flight, kwargs)

    def _enter(self, flight: Flight, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Masks and positions of the first stage."""
        stage = flight.enter(0)
        contiguous = (stage.mask.long().cumsum(1) - 1).clamp_(min=0)[:, -flight.new.shape[1] :]
        positions = flight.positions
        if positions.dim() == 2:
            positions = contiguous if self.session.positions == "compact" else positions
        elif positions.shape[0] == 4:
            positions = torch.cat([contiguous[None], positions[1:]])
        flight.positions = positions
        return {**kwargs, "attention_mask": stage.mask.long(), "position_ids": positions}
