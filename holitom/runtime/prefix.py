"""The compressed start of a prompt, kept in a KV cache, from which any number of questions go on.

What a question can share with another one about the same video is whatever does not depend on it. The vision tower,
the stage before the LLM, and every decoder layer in front of the first inner stage see the video before they see the
question, so their work is done once, by :func:`hold`. An inner stage decides by the question's last token. Therefore
the pass stops in front of it and keeps the hidden states that would have entered; each question then brings its own
tokens up to that layer, and the rest of the layers work on both. So the answer is that of a separate prompt, with an
inner stage too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.models.caching import cache_argument
from holitom.runtime.flight import Flight, LiveSpan, Waiting
from holitom.runtime.records import PromptRecord
from holitom.runtime.state import CacheState, Stage

if TYPE_CHECKING:
    from holitom.runtime.session import Session


@dataclass(eq=False)
class Prefix:
    """A prompt up to the end of its last video, compressed.

    Args:
        cache: keys and values of its C tokens in every layer in front of the first inner stage.
        record: its tokens and videos. following: the position of the token that comes next.
        waiting: hidden states in front of the first inner stage; None for a method without one.
    """

    cache: Any = field(repr=False)
    record: PromptRecord
    following: int
    waiting: Waiting | None = field(default=None, repr=False)

    @property
    def tokens(self) -> int:
        """C: the tokens it holds, text and visual."""
        return self.record.by_layer[0]

    @property
    def stackable(self) -> bool:
        """Whether it can stand in one batch with others: every layer of its cache holds plain keys and values."""
        from transformers import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.cache.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        held = [tensor for layer in self.cache.layers for tensor in _tensors(vars(layer).values())]
        held += _tensors([self.waiting.hidden, *self.waiting.embeddings]) if self.waiting is not None else []
        return sum(tensor.nbytes for tensor in held)


def hold(session: Session, inputs: dict[str, Any]) -> Prefix:
    """Reads the start of a prompt with its videos, and no further than what follows can share.

    Args:
        session: at work on its model.
        inputs: ``input_ids`` (1, P), up to a token of text behind the last video, and the pixels, as for ``forward()``.

    Raises:
        ValueError: when there is no video in it, more than one row, or no text behind it where positions need it.
    """
    from transformers import DynamicCache

    if not session.active:
        raise ValueError("a prefix is read in a session that is at work: open it, and use no other one inside it")
    if inputs["input_ids"].shape[0] != 1:
        raise ValueError(f"a prefix is one row, got {inputs['input_ids'].shape[0]}: read them one by one")
    decoder = session.adapter.decoder
    cache = DynamicCache(config=decoder.config)
    session.prompts, session.holding = [], Holding()
    try:
        base = session.adapter.base
        base(**inputs, **{cache_argument(base.forward): cache}, use_cache=True)
    except _Stopped:
        pass
    finally:
        holding, session.holding = session.holding, None
        state = session.states.pop(cache, None)
        if state is not None:
            state.uncover(cache)
    if not session.prompts:
        raise ValueError("the start of the prompt holds no video: there is nothing to keep")
    return Prefix(cache, session.prompts[0], holding.following, holding.waiting)


def resume(session: Session, prefixes: Sequence[Prefix], questions: Sequence[Sequence[int]], pad_id: int) -> Any:
    """What ``generate()`` needs to go on from prefixes, one question each; the prefixes stay as they are.

    Args:
        session: the one that they were read in.
        prefixes: one for each row; the same one may stand in several rows.
        questions: the ids that follow in each row, all of the prompt after its prefix.
        pad_id: fills shorter rows, between the prefix and its question.

    Returns:
        ``input_ids`` (B, Q), ``attention_mask`` (B, C + Q) and the KV cache, for one call.

    Raises:
        ValueError: when a question is empty, or the model's cache is none that rows can share (see ``stackable``).
    """
    if not prefixes or len(prefixes) != len(questions) or not all(questions):
        raise ValueError(
            f"each of {len(prefixes)} prefixes needs one question of at least one token, got "
            f"{[len(question) for question in questions]} tokens"
        )
    if len(prefixes) > 1 and not all(prefix.stackable for prefix in prefixes):
        raise ValueError(
            f"the KV cache of {type(session.model).__name__} holds more than keys and values, so its prefixes cannot "
            "share a batch: resume them one by one"
        )
    device = session.model.get_input_embeddings().weight.device
    kept, asked = max(prefix.tokens for prefix in prefixes), max(map(len, questions))
    mask = torch.zeros(len(prefixes), kept + asked, dtype=torch.long)
    ids = torch.full((len(prefixes), asked), pad_id)
    for row, (prefix, question) in enumerate(zip(prefixes, questions, strict=True)):
        mask[row, kept - prefix.tokens : kept] = 1
        mask[row, kept + asked - len(question) :] = 1
        ids[row, asked - len(question) :] = torch.tensor(question)
    ids, mask = ids.to(device), mask.to(device)
    cache = _stack(session, prefixes, kept)
    known = mask[:, :kept].bool()
    first, *later = (0, *session.layers)
    state = CacheState([Stage(first, known), *(Stage(layer, known[:, :0]) for layer in later)])
    state.following = torch.tensor([prefix.following for prefix in prefixes], device=device)
    state.waiting = _wait(session, prefixes, [len(question) for question in questions], kept, asked)
    session.states[cache] = state
    if hasattr(session.adapter.base, "rope_deltas"):
        session.adapter.base.rope_deltas = None  # of another prompt; the state knows which positions follow
    session.remember(state.waiting.prompts)
    return {"input_ids": ids, "attention_mask": mask, cache_argument(session.model.forward): cache}


@dataclass(eq=False)
class Holding:
    """What is noted while a prefix is read."""

    following: int = 0
    waiting: Waiting | None = None

    def see(self, kwargs: dict[str, Any]) -> None:
        """Notes the position after the full prompt's last token."""
        given = kwargs.get("position_ids")
        if given is None:
            self.following = kwargs["inputs_embeds"].shape[1]
            return
        last = given[-3:, 0, -1] if given.dim() == 3 else given[:, -1]
        if len(set(last.tolist())) > 1:  # only the model knows where text goes on after a video: it need not be the max
            raise ValueError("the start of a prompt must end with a token of text behind its last video")
        self.following = int(last[0]) + 1

    def stop(self, hidden: Tensor, embeddings: Any, flight: Flight) -> None:
        """Keeps what would have entered the inner stage, and ends the pass."""
        seen = flight.attention.get(0, hidden.new_zeros(hidden.shape[1], dtype=torch.float32))
        self.waiting = Waiting(hidden, tuple(embeddings), flight.positions, flight.new, flight.spans, flight.prompts)
        self.waiting.seen = [seen]
        raise _Stopped


class _Stopped(Exception):
    """Ends the pass of a prefix in front of the first inner stage."""


def _stack(session: Session, prefixes: Sequence[Prefix], width: int) -> Any:
    """A cache of its own for a batch: keys and values padded on the left to ``width`` tokens."""
    from transformers import DynamicCache

    if not prefixes[0].stackable:
        return copy.deepcopy(prefixes[0].cache)
    cache = DynamicCache(config=session.adapter.decoder.config)
    for number, layers in enumerate(zip(*(prefix.cache.layers for prefix in prefixes), strict=True)):
        if layers[0].get_seq_length():
            keys, values = (
                torch.cat([_wide(getattr(layer, name), width) for layer in layers]) for name in ("keys", "values")
            )
            cache.update(keys, values, number)
    return cache


def _wait(session: Session, prefixes: Sequence[Prefix], lengths: list[int], kept: int, asked: int) -> Waiting:
    """The rows' hidden states and records in front of the first inner stage; without one, the records alone."""
    depth = len(session.adapter.layers)
    prompts, spans = [], []
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        record = prefix.record
        videos = [replace(video, row=row, inner=[]) for video in record.videos]
        prompts.append(PromptRecord(row, record.tokens + length, [prefix.tokens + length] * depth, videos))
        live = prefix.waiting.spans[0] if prefix.waiting is not None else []
        shift = kept - prefix.tokens
        spans.append(
            [LiveSpan(video, span.columns + shift, span.place, span.entered) for video, span in zip(videos, live)]  # noqa: B905
        )
    held = [prefix.waiting for prefix in prefixes if prefix.waiting is not None]
    if not held:
        return Waiting(None, (), None, None, [[] for _ in prefixes], prompts)
    waiting = Waiting(
        hidden=torch.cat([_wide(each.hidden, kept) for each in held]),
        embeddings=tuple(
            torch.cat([_wide(part, kept) for part in parts], dim=-3)
            for parts in zip(*(each.embeddings for each in held), strict=True)
        ),
        positions=torch.cat([_wider(each.positions, kept) for each in held], dim=-2),
        new=torch.cat([_wider(each.new, kept) for each in held]),
        spans=spans,
        prompts=prompts,
    )
    waiting.padding = [kept - prefix.tokens for prefix in prefixes]
    waiting.between = [asked - length for length in lengths]
    waiting.seen = [_wider(each.seen[0], kept) for each in held]
    return waiting


def _wide(part: Any, width: int) -> Tensor:
    """(..., L, d) -> (..., width, d): zeros in front."""
    return pad(part, (0, 0, width - part.shape[-2], 0))


def _wider(part: Any, width: int) -> Tensor:
    """(..., L) -> (..., width): zeros in front."""
    return pad(part, (width - part.shape[-1], 0))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]
