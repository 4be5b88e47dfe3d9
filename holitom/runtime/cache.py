"""What a KV cache remembers of the compressed prompts in it. It lives in the cache object and goes where that goes.

A cache that takes its first compressed prompt gets a class of its own, derived from the one it had: copying, pickling,
cropping, reordering and repeating rows then treat the memory as they treat keys and values. Outside a session such a
cache refuses new tokens, because only a session knows their masks and positions.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.runtime.lengths import cached_length, restore_static

if TYPE_CHECKING:
    from holitom.methods.base import Method
    from holitom.runtime.call import VideoSpan
    from holitom.runtime.records import PromptRecord
    from holitom.runtime.step import Step

_KEY = "_holitom_memory"


@dataclass(eq=False)
class Stage:
    """Decoder layers from ``layer`` up to the next stage's share one sequence length.

    Args:
        layer: the first of them.
        length: L, the tokens of each row at the end of the latest call that was no decode step.
        mask: (B, P) bool, which of the first P tokens are real (not padding), as are all behind them; None: all.
        shortened: whether a prompt has lost tokens in front of ``layer``; else the sequence is the stage before's.
        padding: (B, 1) int64, how many of each row are not real; None: none.
        mass: (B, P) float32, logs of the masses of the first P tokens (``mass.py``); those behind have mass 1, as all
            have without it.
    """

    layer: int
    length: int = 0
    mask: Tensor | None = None
    shortened: bool = False
    padding: Tensor | None = None
    mass: Tensor | None = None

    def weigh(self, past: int, new: Tensor | None, rows: int) -> None:
        """Adds masses (B, Q) of new tokens, None: all 1, behind those of ``past`` that are cached."""
        if self.mass is not None:
            self.mass = self.mass[:, :past]
        if new is not None:
            known = new.new_zeros(rows, 0) if self.mass is None else self.mass.to(new.device)
            known = pad(known, (0, past - known.shape[1]))
            self.mass = torch.cat([known, new.log()], dim=1)

    def __post_init__(self) -> None:
        self.know(self.mask)

    def know(self, mask: Tensor | None) -> None:
        """Sets the mask, and what follows from it."""
        self.mask, self.padding = mask, None if mask is None else (~mask).sum(1, keepdim=True)

    def first(self, tokens: int) -> Tensor | None:
        """(B, tokens) bool: which of the first tokens are real; None: all of them."""
        if self.mask is None or self.mask.shape[1] >= tokens:
            return None if self.mask is None else self.mask[:, :tokens]
        return pad(self.mask, (0, tokens - self.mask.shape[1]), value=True)

    def grow(self, past: int, new: Tensor | None, rows: int, width: int) -> None:
        """Adds tokens behind those that are cached.

        Args:
            past: how many tokens the layer holds.
            new: (B, Q) bool, which of the new tokens are real; None: all of them.
            rows: B.
            width: Q.
        """
        known, self.length = self.first(past), past + width
        if new is not None:
            known = new.new_ones(rows, past) if known is None else known.to(new.device)
            known = torch.cat([known, new], dim=1)
        self.know(known)


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
        offset: (B, 1), integers or floats as the position ids are, added to the number of real tokens before a new one
            it gives that one's position; None: unknown, the model's own positions count.
        planes: how many planes of equal positions a new token needs where the call brings none; None: one for all rows.
        end: the tokens of the first layer up to its last video; those behind may be cropped. At first: none may.
        unfinished: what the first call on this cache completes.
        open: whether a call is at work that may add tokens.
        step: the decode step at work.
        in_generate: whether ``generate()`` runs, whose own masks for a static cache say only what is padding.
    """

    method: Method
    positions: str
    stages: list[Stage]
    rows: int
    dropped: int = 0
    offset: Tensor | None = None
    planes: int | None = None
    end: int = sys.maxsize
    unfinished: Unfinished | None = None
    open: bool = False
    step: Step | None = None
    in_generate: bool = False

    def following(self, count: Tensor, given: Tensor | None) -> Tensor | None:
        """Position ids of tokens behind the prompt, from how many real ones stand before them, (B or 1, Q)."""
        if self.offset is None:
            return given
        places = count + self.offset.to(count.device)
        planes = self.planes if given is None or given.dim() == 2 else len(given)
        return places if planes is None else places.expand(planes, -1, -1)

    def numbered(self, count: Tensor, given: Tensor | None) -> Tensor:
        """Position ids as the decoder takes them: contiguous where they are to be compact, or not known."""
        if given is None or (given.dim() == 2 and self.positions == "compact"):
            return count
        if given.dim() == 3 and len(given) == 4:  # a plane of its own for text, without gaps
            return torch.cat([count.expand(given.shape[1:])[None], given[1:]])
        return given

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
                stage.know(stage.mask.index_select(0, rows.to(stage.mask.device)))
            if stage.mass is not None:
                stage.mass = stage.mass.index_select(0, rows.to(stage.mass.device))
        if self.offset is not None:
            self.offset = self.offset.index_select(0, rows.to(self.offset.device))
        self.rows = len(rows)

    def crop(self, tokens: int, cache: Any) -> None:
        """Forgets so many tokens at the end of the cache.

        Raises:
            ValueError: when that would cut into a compressed video.
        """
        behind = max(0, cached_length(cache, 0) - self.end)
        if tokens > behind:
            raise ValueError(
                f"cannot crop {tokens} tokens off this KV cache: {behind} follow its last compressed video, whose "
                "tokens no longer stand for places in the prompt. Start from a new cache"
            )
        for stage in self.stages:
            if stage.mask is not None:
                width, left = stage.mask.shape[1], cached_length(cache, stage.layer) - tokens
                stage.know(pad(stage.mask[:, :left], (0, max(0, width - left)), value=True))


def memory_of(cache: Any) -> CacheMemory | None:
    """What a KV cache (or None) remembers; None for one without compressed prompts."""
    return getattr(cache, _KEY, None)


def remember(cache: Any, memory: CacheMemory) -> None:
    """Gives a KV cache its memory."""
    vars(cache)[_KEY] = memory
    if not isinstance(cache, _Remembering):
        own: Any = type(cache)
        cache.__class__ = _class(own)


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
        vars(self)[_KEY].crop(cut, self)
        if cut or not tokens:
            super().crop(-cut)  # type: ignore[misc]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        vars(self)[_KEY].select(beam_idx)
        super().reorder_cache(beam_idx)  # type: ignore[misc]

    def batch_repeat_interleave(self, repeats: int) -> None:
        memory = vars(self)[_KEY]
        memory.select(torch.arange(memory.rows, device="cpu").repeat_interleave(repeats))
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]

    def batch_select_indices(self, indices: Tensor) -> None:
        memory = vars(self)[_KEY]
        memory.select(torch.arange(memory.rows, device="cpu")[indices.cpu()])
        super().batch_select_indices(indices)  # type: ignore[misc]

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        del vars(self)[_KEY]
        self.__class__ = self._holitom_of
        restore_static(self)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        self._require_open()
        return super().update(*args, **kwargs)  # type: ignore[misc]

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Any:
        self._require_open()
        return super().update_conv_state(*args, **kwargs)  # type: ignore[misc]

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Any:
        self._require_open()
        return super().update_recurrent_state(*args, **kwargs)  # type: ignore[misc]

    def _require_open(self) -> None:
        memory: Any = memory_of(self)
        if not memory.open:
            raise RuntimeError(
                f"this KV cache holds a video that {memory.method!r} compressed, so only a session of the same method "
                f"can go on from it: call the model inside `with {memory.method!r}(model):`"
            )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self._holitom_of,), vars(self)


@functools.cache
def _class(own: Any) -> Any:
    """A cache class that remembers."""
    return type(own.__name__, (_Remembering, own), {"_holitom_of": own, "__module__": own.__module__})


def _restored(own: Any) -> Any:
    return _class(own).__new__(_class(own))
