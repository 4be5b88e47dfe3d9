"""What a KV cache remembers of the compressed prompts in it. It lives in the cache object and goes where that goes.

A cache that takes its first compressed prompt gets a class of its own, derived from the one it had: copying, pickling,
cropping, reordering and repeating rows then treat the memory as they treat keys and values. Outside a session such a
cache refuses new tokens, because only a session knows their masks and positions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from holitom.methods.base import Method
    from holitom.runtime.call import VideoSpan
    from holitom.runtime.records import PromptRecord

_KEY = "_holitom_memory"


@dataclass(eq=False)
class Stage:
    """Decoder layers from ``layer`` up to the next stage's share one sequence length.

    Args:
        layer: the first of them.
        length: L, the tokens that their KV cache holds for each row.
        mask: (B, L) bool, which of these are real (not padding); None: all of them.
        shortened: whether a prompt has lost tokens in front of ``layer``; else the sequence is the stage before's.
        mass: (B, P) float32, logs of the masses of the first P tokens (``mass.py``); those behind have mass 1, as all
            have without it.
    """

    layer: int
    length: int = 0
    mask: Tensor | None = None
    shortened: bool = False
    mass: Tensor | None = None

    def weigh(self, past: int, new: Tensor | None, rows: int) -> None:
        """Adds masses (B, Q) of new tokens, None: all 1, behind those of ``past`` that are cached."""
        if self.mass is not None:
            self.mass = self.mass[:, :past]
        if new is not None:
            known = new.new_zeros(rows, 0) if self.mass is None else self.mass.to(new.device)
            known = torch.nn.functional.pad(known, (0, past - known.shape[1]))
            self.mass = torch.cat([known, new.log()], dim=1)

    def grow(self, past: int | None, new: Tensor | None, rows: int, width: int) -> None:
        """Adds tokens behind those that are cached.

        Args:
            past: how many tokens the layer holds (what lies behind was cropped); None: as many as were added.
            new: (B, Q) bool, which of the new tokens are real; None: all of them.
            rows: B.
            width: Q.
        """
        past = self.length if past is None else min(past, self.length)
        if self.mask is not None or new is not None:
            known = self.mask
            if known is None:
                known = new.new_ones(rows, past)  # type: ignore[union-attr]
            elif known.shape[1] > past:
                known = known[:, :past]
            if new is None:
                self.mask = torch.nn.functional.pad(known, (0, width), value=True)
            else:
                self.mask = torch.cat([known.to(new.device), new], dim=1)
        self.length = past + width


@dataclass(eq=False)
class Unfinished:
    """Tokens that stand in front of the first inner stage while their question is still to come (``prefix.py``).

    Args:
        hidden: (B, C, D); None for a method without an inner stage.
        embeddings: rotary embeddings of those tokens.
        positions: (B, C) or (3 or 4, B, C).
        new: (B, C) bool, which of them are real.
        spans: of each row.
        prompts: of each row.
        padding: for each row, the padding in front.
        between: for each row, that between its C tokens and the question.
        seen: for each row, the attention (C,) of the text that was read with the videos.
        mass: (B, C) masses of those tokens; None: all 1.
    """

    hidden: Tensor | None = None
    embeddings: tuple[Tensor, ...] = ()
    positions: Tensor | None = None
    new: Tensor | None = None
    spans: list[list[VideoSpan]] = field(default_factory=list)
    prompts: list[PromptRecord] = field(default_factory=list)
    padding: list[int] = field(default_factory=list)
    between: list[int] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)
    mass: Tensor | None = None


@dataclass(eq=False)
class CacheMemory:
    """The stages of one KV cache, and how its tokens relate to those of the full prompt.

    Args:
        method: the one that compressed what is in the cache.
        positions: the session's setting.
        stages: one for the first decoder layer and one for each inner stage.
        rows: B.
        dropped: tokens by which the first layer's sequence is shorter than the full prompt.
        offset: (B, 1) int64, added to the number of real tokens before a new one it gives that one's position; None:
            unknown, the model's own positions count.
        tail: tokens at the end, behind the last video, that may be cropped.
        unfinished: what the first call on this cache completes.
    """

    method: Method
    positions: str
    stages: list[Stage]
    rows: int
    dropped: int = 0
    offset: Tensor | None = None
    tail: int = 0
    unfinished: Unfinished | None = None

    def check(self, method: Method, layers: tuple[int, ...], rows: int) -> None:
        """Raises ValueError where a call with a method (whose inner stages are at ``layers``) cannot go on."""
        if method != self.method and (layers or len(self.stages) > 1):
            raise ValueError(
                f"this KV cache holds a video that {self.method!r} compressed, and {method!r} cannot go on with it, "
                "because at least one of them merges tokens inside the LLM: use a session of the same method, or start "
                "from a new cache"
            )
        if not method.mass and any(stage.mass is not None for stage in self.stages):
            raise ValueError(
                f"this KV cache holds a video that {self.method!r} compressed, whose tokens have masses: use a session "
                "with mass=True, or start from a new cache"
            )
        if rows != self.rows:
            raise ValueError(
                f"this KV cache holds {self.rows} compressed prompts, but the batch now has {rows} rows: give "
                "generate() the whole batch again, or start from a new cache"
            )

    def select(self, rows: Tensor) -> None:
        """Keeps rows (a new order, or some of them more than once), given as indexes (B',) int64."""
        if self.unfinished is not None:
            raise ValueError("this KV cache waits for its questions: change its rows after the first call")
        for stage in self.stages:
            if stage.mask is not None:
                stage.mask = stage.mask.index_select(0, rows.to(stage.mask.device))
            if stage.mass is not None:
                stage.mass = stage.mass.index_select(0, rows.to(stage.mass.device))
        if self.offset is not None:
            self.offset = self.offset.index_select(0, rows.to(self.offset.device))
        self.rows = len(rows)

    def crop(self, tokens: int) -> None:
        """Forgets so many tokens at the end.

        Raises:
            ValueError: when that would cut into a compressed video.
        """
        if tokens > self.tail:
            raise ValueError(
                f"cannot crop {tokens} tokens off this KV cache: {self.tail} follow its last compressed video, whose "
                "tokens no longer stand for places in the prompt. Start from a new cache"
            )
        self.tail -= tokens
        for stage in self.stages:
            stage.length -= tokens
            if stage.mask is not None:
                stage.mask = stage.mask[:, : stage.length]


def memory_of(cache: Any) -> CacheMemory | None:
    """What a KV cache (or None) remembers; None for one without compressed prompts."""
    return None if cache is None else vars(cache).get(_KEY)


def remember(cache: Any, memory: CacheMemory) -> None:
    """Gives a KV cache its memory."""
    vars(cache)[_KEY] = memory
    if not isinstance(cache, _Remembering):
        own: Any = type(cache)
        cache.__class__ = _classes(own)[0]


def set_open(cache: Any, is_open: bool) -> None:
    """Lets a cache that remembers take new tokens, or refuse them."""
    if isinstance(cache, _Remembering):
        cache.__class__ = _classes(cache._holitom_of)[0 if is_open else 1]


def cached_length(cache: Any, layer: int) -> int | None:
    """The number of tokens that a layer of the cache holds; None where only the device knows (a static cache).

    Layers of linear attention hold a state and no tokens; the next layer of attention answers for them.
    """
    if cache is None:
        return 0
    counting = (held for held in cache.layers[layer:] if hasattr(held, "get_seq_length"))
    found = next(counting, None)
    length = 0 if found is None else found.get_seq_length()
    return None if isinstance(length, Tensor) else int(length)


def require_tokens(cache: Any, lengths: list[int], model: str) -> None:
    """Refuses rows of different lengths behind what a cache holds, where some layers hold a state and no tokens.

    Convolutions and linear attention run over the padding between the two as if it were text.

    Args:
        cache: the KV cache, or None.
        lengths: tokens of each row of the coming call.
        model: the model's class.

    Raises:
        ValueError: naming the model and the lengths.
    """
    if cached_length(cache, 0) and not all(hasattr(layer, "get_seq_length") for layer in cache.layers):
        raise ValueError(
            f"{model} has layers whose state runs over all tokens, padding too, so the rows of a further turn must be "
            f"of one length; compression leaves {lengths} tokens: use a method with exact=True, or ask row by row"
        )


class _Remembering:
    """In front of a cache's own class: what changes keys and values changes the memory with them."""

    _holitom_of: Any

    def get_seq_length(self, layer_idx: int | None = None) -> Any:
        """Without a layer: in tokens of the full prompt, which is what ``generate()`` slices the next turn's ids by."""
        own: Any = super()
        if layer_idx is not None:
            return own.get_seq_length(layer_idx)
        return own.get_seq_length() + vars(self)[_KEY].dropped

    def crop(self, tokens: int) -> None:
        """Takes a negative number of tokens off, or (before transformers 5.24) leaves so many of the full prompt."""
        cut = -tokens if tokens <= 0 else max(0, int(self.get_seq_length()) - tokens)
        vars(self)[_KEY].crop(cut)
        if cut or not tokens:
            super().crop(-cut)  # type: ignore[misc]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        vars(self)[_KEY].select(beam_idx)
        super().reorder_cache(beam_idx)  # type: ignore[misc]

    def batch_repeat_interleave(self, repeats: int) -> None:
        memory = vars(self)[_KEY]
        memory.select(torch.arange(memory.rows).repeat_interleave(repeats))
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]

    def batch_select_indices(self, indices: Tensor) -> None:
        memory = vars(self)[_KEY]
        memory.select(torch.arange(memory.rows)[indices.cpu()])
        super().batch_select_indices(indices)  # type: ignore[misc]

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        del vars(self)[_KEY]
        self.__class__ = self._holitom_of

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self._holitom_of,), vars(self)


class _Closed:
    """In front of those, while no session is at work on the cache."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        method = vars(self)[_KEY].method
        raise RuntimeError(
            f"this KV cache holds a video that {method!r} compressed, so only a session of the same method can go on "
            f"from it: call the model inside `with {method!r}(model):`"
        )

    update = update_conv_state = update_recurrent_state = _refuse


@functools.cache
def _classes(own: Any) -> tuple[Any, Any]:
    """A cache class that remembers, open and closed."""
    body = {"_holitom_of": own, "__module__": own.__module__}
    opened = type(own.__name__, (_Remembering, own), body)
    return opened, type(own.__name__, (_Closed, opened), {"__module__": own.__module__})


def _restored(own: Any) -> Any:
    closed = _classes(own)[1]
    return closed.__new__(closed)
