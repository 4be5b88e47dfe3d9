"""A method at work on a model: attached, watched, and taken off again without a trace."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from holitom.cost import CostReport, ModelShape
from holitom.methods.base import Method, Positions
from holitom.models.base import Adapter, VideoLayout, adapter_for
from holitom.runtime.encoder import layouts_of, watch_encoder
from holitom.runtime.flight import Flight
from holitom.runtime.hooks import DecoderHook
from holitom.runtime.layer_hook import LayerHook
from holitom.runtime.prefix import Holding
from holitom.runtime.records import PromptRecord, VideoRecord
from holitom.runtime.state import CacheState
from holitom.runtime.summary import Summary
from holitom.runtime.taps import observe, release
from holitom.runtime.wrap import Wrapped, bound_arguments

_stacks: weakref.WeakKeyDictionary[nn.Module, list[Session]] = weakref.WeakKeyDictionary()
_wraps: weakref.WeakKeyDictionary[nn.Module, list[Wrapped]] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


class Session:
    """Compresses the videos of one model with one method, as a context manager or until :meth:`remove`.

    Inside, ``generate()`` and ``forward()`` are called as ever: batches, several videos, images and turns included.
    Hidden states and logits of a call with videos cover the tokens that are left, so logits of a compressed prompt are
    shorter than its ids. Sessions may be nested: the innermost one works, the others wait.

    Args:
        method: the method.
        model: a transformers video LLM, see ``holitom.models``.
        positions: ``"compact"`` or ``"original"`` instead of the method's own, see :class:`~holitom.methods.Method`.
        timer: an object with ``stage(name) -> context manager`` that is told when the vision tower ("vision tower") and
            the method ("compression") work, as ``holitom.cost.StageTimer``.

    Raises:
        TypeError: when the model's family is unknown.
        ValueError: when the method's inner stage does not fit the model.
    """

    def __init__(self, method: Method, model: Any, *, positions: Positions | None = None, timer: Any = None) -> None:
        if positions not in ("compact", "original", None):
            raise ValueError(f"positions must be 'compact' or 'original', got {positions!r}")
        method = method if positions is None else method.with_positions(positions)
        self.method, self.model, self.positions, self.timer = method, model, method.positions, timer
        self.adapter: Adapter = adapter_for(model)
        self.layers = method.layers(len(self.adapter.layers))
        if self.layers and not self.adapter.inner:
            raise ValueError(
                f"{type(model).__name__} mixes attention with other kinds of layers, so {method.name} cannot merge "
                "tokens inside it: use a method that acts before the LLM alone (HoliTom: layer=None)"
            )
        if self.layers and self.layers[0] < self.adapter.first_inner_layer:
            raise ValueError(
                f"{type(model).__name__} adds visual features to the output of its first decoder layers, so tokens "
                f"can be merged in front of layer {self.adapter.first_inner_layer} or later, not {self.layers[0]}"
            )
        self.states: weakref.WeakKeyDictionary[Any, CacheState] = weakref.WeakKeyDictionary()
        self.prompts: list[PromptRecord] = []
        self._handles: list[Any] = []
        self._here = threading.local()

    # what a user asks ------------------------------------------------------------------------------------------

    @property
    def videos(self) -> list[VideoRecord]:
        """The videos of the latest prompt, row by row."""
        return [video for prompt in self.prompts for video in prompt.videos]

    def summary(self) -> Summary:
        """Tokens, FLOPs and KV-cache bytes of the latest prompt that held a video, compressed and full.

        Raises:
            RuntimeError: when no video has been seen yet.
        """
        if not self.prompts:
            waiting = "" if self.active or not self._handles else " (another session inside this one is at work)"
            raise RuntimeError(f"there is nothing to sum up yet: run the model on a prompt with a video first{waiting}")
        decoder = self.adapter.decoder
        cost = CostReport.of(
            ModelShape.from_config(self.model.config),
            [prompt.tokens for prompt in self.prompts],
            [prompt.by_layer for prompt in self.prompts],
            [prompt.visual_by_layer for prompt in self.prompts],
            next(decoder.parameters()).dtype,
            attention="eager" if decoder.config._attn_implementation == "eager" else "sdpa",  # type: ignore[union-attr]
        )
        return Summary(self.method.settings(), self.prompts, cost)

    @property
    def active(self) -> bool:
        """Whether this is the innermost session on its model."""
        return _current(self.model) is self

    def _repr_html_(self) -> str:
        from holitom.report.reprs import session_html  # only where a notebook asks for a picture

        return session_html(self)

    # on and off -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def attach(self) -> Self:
        """Starts compressing. Ends with :meth:`remove`.

        Raises:
            RuntimeError: when this session is attached already.
        """
        if self._handles:
            raise RuntimeError("this session is already attached: make another one with method(model)")
        base, decoder = self.adapter.base, self.adapter.decoder
        try:
            with _lock:
                stack = _stacks.setdefault(self.model, [])
                if not stack:
                    current = functools.partial(_current, self.model)
                    _wraps[self.model] = [
                        watch_encoder(base, self.adapter.encoder, current),
                        _watch_generate(self.model, current),
                    ]
                stack.append(self)
            # in a compiled model these run as they are: what they keep must not lie in the memory of a CUDA graph
            untraced: Callable[[Any], Any] = torch.compiler.disable
            self._handles += [
                self.model.register_forward_pre_hook(self._see_labels, with_kwargs=True),
                base.register_forward_pre_hook(self._see_ids, with_kwargs=True),
                decoder.register_forward_pre_hook(untraced(DecoderHook(self)), with_kwargs=True),
                decoder.register_forward_hook(self._land, always_call=True),
            ]
            if self.layers:
                for number, layer in enumerate(self.adapter.layers):
                    if number >= self.layers[0]:
                        hook = untraced(LayerHook(self, number))
                        self._handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
                    if self.method.attention in ("last", "text") and number + 1 in self.layers:
                        self._watch_layer(layer.self_attn, number)  # type: ignore[arg-type]
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self) -> None:
        """Stops compressing and restores everything. Does nothing the second time."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        release(self)
        with _lock:
            stack = _stacks.get(self.model, [])
            if self in stack:
                stack.remove(self)
                if not stack:
                    for wrap in _wraps.pop(self.model):
                        wrap.remove()
        for cache, state in self.states.items():
            state.uncover(cache)
        self._here.__dict__.clear()

    # one call ---------------------------------------------------------------------------------------------------

    @property
    def flight(self) -> Flight | None:
        """The decoder call in progress in this thread."""
        return getattr(self._here, "flight", None)

    @flight.setter
    def flight(self, flight: Flight | None) -> None:
        self._here.flight = flight

    @property
    def input_ids(self) -> Tensor | None:
        """(B, Q) ids of the model call in progress in this thread, when it came with ids."""
        return getattr(self._here, "ids", None)

    @property
    def mask(self) -> Tensor | None:
        """(B, L) padding mask of the model call in progress in this thread, when it came with a flat one."""
        return getattr(self._here, "mask", None)

    @property
    def layouts(self) -> list[VideoLayout]:
        """The videos encoded for the model call in progress in this thread."""
        return getattr(self._here, "layouts", [])

    @layouts.setter
    def layouts(self, layouts: list[VideoLayout]) -> None:
        self._here.layouts = layouts

    @property
    def holding(self) -> Holding | None:
        """What is noted of the prefix that is being read in this thread, see ``runtime/prefix.py``."""
        return getattr(self._here, "holding", None)

    @holding.setter
    def holding(self, holding: Holding | None) -> None:
        self._here.holding = holding

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Tells the timer, if there is one, what is being worked on."""
        return nullcontext() if self.timer is None else self.timer.stage(name)

    def remember(self, prompts: list[PromptRecord]) -> None:
        """Makes these the session's latest prompts."""
        self.prompts = prompts

    @property
    def prompt_columns(self) -> int | None:
        """The length of the ids that ``generate()`` was called with, while it runs in this thread."""
        return getattr(self._here, "prompt", None)

    @prompt_columns.setter
    def prompt_columns(self, columns: int | None) -> None:
        self._here.prompt = columns

    @property
    def prompt_mask(self) -> Tensor | None:
        """(B, L) padding mask that ``generate()`` was called with, while it runs in this thread."""
        return getattr(self._here, "prompt_mask", None)

    @prompt_mask.setter
    def prompt_mask(self, mask: Tensor | None) -> None:
        self._here.prompt_mask = mask

    @property
    def labelled(self) -> bool:
        """Whether the model call in progress in this thread came with labels."""
        return getattr(self._here, "labelled", False)

    def _see_labels(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bound_arguments(model.forward, args, kwargs) if args else kwargs
        self._here.labelled = arguments.get("labels") is not None

    def _see_ids(self, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bound_arguments(base.forward, args, kwargs) if args else kwargs
        self.adapter.check(arguments)
        mask = arguments.get("attention_mask")
        self._here.ids, self._here.mask = arguments.get("input_ids"), mask if _is_flat(mask) else None
        encoded = (arguments.get("mm_encoder_outputs") or {}).get(self.adapter.modality)
        pixels = arguments.get("pixel_values_videos") if self.adapter.modality == "video" else None
        if self.active and self._here.ids is None and (encoded is not None or pixels is not None):
            raise ValueError(
                "a video that comes with inputs_embeds cannot be compressed, because only token ids say where it "
                "stands in the prompt: give input_ids instead, or leave the session for this call"
            )
        if encoded is not None:  # beams and device maps rebuild it: then what was encoded last in this thread counts
            self.layouts = layouts_of(encoded) or self.layouts

    def _land(self, *_: object) -> None:
        self.flight = None
        self._here.ids = self._here.mask = None

    def _watch_layer(self, attention: nn.Module, number: int) -> None:
        def observer(query: Tensor, key: Tensor, scale: float) -> None:
            flight = self.flight
            if flight is not None and self.active:
                flight.observe(query, key, scale, number)

        observe(attention, self, observer)


def _is_flat(mask: object) -> bool:
    return isinstance(mask, Tensor) and mask.dim() == 2


def _current(model: nn.Module) -> Session | None:
    stack = _stacks.get(model)
    return stack[-1] if stack else None


def _watch_generate(model: Any, session: Callable[[], Session | None]) -> Wrapped:
    """Notes where the prompt ends: prompt lookup appends candidates, and without a cache every step repeats it."""
    generate = model.generate

    @functools.wraps(generate)
    def noting(*args: Any, **kwargs: Any) -> Any:
        current = session()
        if current is None:
            return generate(*args, **kwargs)
        arguments = bound_arguments(generate, args, kwargs)
        ids = arguments.get("input_ids", arguments.get("inputs"))
        mask = arguments.get("attention_mask")
        current.prompt_columns = None if ids is None else ids.shape[1]
        current.prompt_mask = mask if _is_flat(mask) else None
        try:
            return generate(*args, **kwargs)
        finally:
            current.prompt_columns = current.prompt_mask = None

    return Wrapped(model, "generate", noting)
