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

from holitom.models.placement import input_device
from holitom.models.transformers_names import cache_argument
from holitom.runtime.cache import CacheMemory, Stage, Unfinished, memory_of, remember
from holitom.runtime.call import VideoSpan
from holitom.runtime.layers import PrefixRead
from holitom.runtime.question import goes_on
from holitom.runtime.records import PromptRecord
from holitom.runtime.thread import here

if TYPE_CHECKING:
    from holitom.runtime.session import Session


@dataclass(eq=False)
class Prefix:
    """A prompt up to the end of its last video, compressed.

    Args:
        cache: keys and values of its C tokens in every layer in front of the first inner stage, and its memory.
        question: ids of the one question that its video was merged by, for a method that looks at it.
    """

    cache: Any = field(repr=False)
    question: tuple[int, ...] = ()

    @property
    def _memory(self) -> CacheMemory:
        memory = memory_of(self.cache)
        assert memory is not None
        return memory

    @property
    def unfinished(self) -> Unfinished:
        """What stands in front of the first inner stage."""
        unfinished = self._memory.unfinished
        assert unfinished is not None
        return unfinished

    @property
    def record(self) -> PromptRecord:
        """Its tokens and videos."""
        return self.unfinished.prompts[0]

    @property
    def offset(self) -> Tensor | None:
        """(1, 1): the position of the token that comes next, less the tokens it holds; None: those tokens."""
        return self._memory.offset

    @property
    def tokens(self) -> int:
        """C: the tokens it holds, text and visual."""
        return self.record.by_layer[0]

    @property
    def stackable(self) -> bool:
        """Whether it can stand in one batch with others: every layer of its cache holds plain keys and values."""
        from transformers import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.cache.layers)


def hold(session: Session, inputs: dict[str, Any]) -> Prefix:
    """Reads the start of a prompt with its videos, and no further than what follows can share.

    Args:
        session: at work on its model. For a method that looks at the question, ``session.question`` is the one that
            goes on from here.
        inputs: ``input_ids`` (1, P), up to a token of text behind the last video, and the pixels, as for ``forward()``.

    Raises:
        ValueError: when there is no video in it, more than one row, or no text behind it where positions need it; or
            for a method that looks at a question that is not known.
    """
    from transformers import DynamicCache

    if not session.active:
        raise ValueError("a prefix is read in a session that is at work: open it, and use no other one inside it")
    if inputs["input_ids"].shape[0] != 1:
        raise ValueError(f"a prefix is one row, got {inputs['input_ids'].shape[0]}: read them one by one")
    base, cache = session.adapter.base, DynamicCache(config=session.adapter.decoder.config)
    here.reads_prefix = True
    try:
        base(**inputs, **{cache_argument(base.forward): cache}, use_cache=True)
    except PrefixRead:
        pass
    finally:
        here.reads_prefix = False
    if memory_of(cache) is None:
        raise ValueError("the start of the prompt holds no video: there is nothing to keep")
    asked = session.question if "question" in session.method.needs else None
    return Prefix(cache, () if asked is None else tuple(asked[0]))


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
    for prefix, question in zip(prefixes, questions, strict=True):
        if prefix.question and not goes_on(question, prefix.question):
            raise ValueError(
                f"{session.method.name} has merged this video for another question than the one that goes on from it: "
                "read a prefix for each question, or use a method that needs none (see `holitom methods`)"
            )
    device = input_device(session.model)
    kept, asked = max(prefix.tokens for prefix in prefixes), max(map(len, questions))
    mask = torch.zeros(len(prefixes), kept + asked, dtype=torch.long, device="cpu")
    ids = torch.full((len(prefixes), asked), pad_id, dtype=torch.long, device="cpu")
    for row, (prefix, question) in enumerate(zip(prefixes, questions, strict=True)):
        mask[row, kept - prefix.tokens : kept] = 1
        mask[row, kept + asked - len(question) :] = 1
        ids[row, asked - len(question) :] = torch.tensor(question, dtype=torch.long, device="cpu")
    ids, mask = ids.to(device), mask.to(device)
    cache = _stack(session, prefixes, kept)
    padded = any(prefix.tokens < kept for prefix in prefixes)
    first = Stage(0, kept, mask[:, :kept].bool() if padded else None)
    first.mass = _masses([prefix._memory.stages[0].mass for prefix in prefixes], prefixes, kept, 0.0)
    later = [Stage(layer) for layer in session.layers]
    memory = CacheMemory(session.method, session.positions, [first, *later], len(prefixes), end=kept)
    offsets = [prefix.offset for prefix in prefixes]
    memory.planes = prefixes[0]._memory.planes
    memory.offset = None if None in offsets else torch.cat(offsets).to(device)  # type: ignore[arg-type]
    memory.unfinished = _wait(session, prefixes, [len(question) for question in questions], kept, asked)
    remember(cache, memory)
    if hasattr(session.adapter.base, "rope_deltas"):
        session.adapter.base.rope_deltas = None  # of another prompt; the memory knows which positions follow
    session.prompts = memory.unfinished.prompts
    return {"input_ids": ids, "attention_mask": mask, cache_argument(session.model.forward): cache}


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


def _wait(session: Session, prefixes: Sequence[Prefix], lengths: list[int], kept: int, asked: int) -> Unfinished:
    """The rows' hidden states and records in front of the first inner stage; without one, the records alone."""
    depth = len(session.adapter.layers)
    joined = Unfinished()
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        record, shift = prefix.record, kept - prefix.tokens
        videos = [replace(video, row=row, inner=[]) for video in record.videos]
        joined.prompts.append(PromptRecord(row, record.tokens + length, [prefix.tokens + length] * depth, videos))
        live = prefix.unfinished.spans[0] if session.layers else []
        joined.spans.append(
            [
                VideoSpan(video, span.columns + shift, span.place, span.entered)
                for video, span in zip(videos, live, strict=False)
            ]
        )
    if not session.layers:
        return joined
    held = [prefix.unfinished for prefix in prefixes]
    joined.hidden = torch.cat([_wide(each.hidden, kept) for each in held])
    joined.embeddings = tuple(
        torch.cat([_wide(part, kept) for part in parts], dim=-3)
        for parts in zip(*(each.embeddings for each in held), strict=True)
    )
    joined.positions = torch.cat([_wider(each.positions, kept) for each in held], dim=-2)
    joined.mass = _masses([each.mass for each in held], prefixes, kept, 1.0)
    joined.padding = [kept - prefix.tokens for prefix in prefixes]
    joined.between = [asked - length for length in lengths]
    joined.seen = [_wider(each.seen[0], kept) for each in held]
    if any(joined.padding):
        real = torch.arange(kept, device="cpu")[None] >= torch.tensor(joined.padding, device="cpu")[:, None]
        joined.new = real.to(joined.hidden.device)
    return joined


def _masses(parts: list[Tensor | None], prefixes: Sequence[Prefix], width: int, lone: float) -> Tensor | None:
    """(B, width) masses of the prefixes' tokens, or their logs, where any have some; ``lone`` is that of one token."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    filled = []
    for part, prefix in zip(parts, prefixes, strict=True):
        mine = known[0].new_full((1, 0), lone) if part is None else part
        between = (width - prefix.tokens, prefix.tokens - mine.shape[1])  # padding in front, tokens of mass 1 behind
        filled.append(pad(mine, between, value=lone))
    return torch.cat(filled)


def _wide(part: Any, width: int) -> Tensor:
    """(..., L, d) -> (..., width, d): zeros in front."""
    return pad(part, (0, 0, width - part.shape[-2], 0))


def _wider(part: Any, width: int) -> Tensor:
    """(..., L) -> (..., width): zeros in front."""
    return pad(part, (width - part.shape[-1], 0))
