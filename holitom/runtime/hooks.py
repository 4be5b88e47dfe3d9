"""The hooks of all sessions on one model: where a call, its video encoder and ``generate()`` meet the runtime."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from holitom.models.base import Adapter
from holitom.runtime.arguments import bound_arguments
from holitom.runtime.attention import release, watch
from holitom.runtime.cache import set_open
from holitom.runtime.call import Call
from holitom.runtime.encoder import encode, layouts_of
from holitom.runtime.layers import enter_layer, reads_packed
from holitom.runtime.prefill import enter_decoder
from holitom.runtime.thread import Generation, here

if TYPE_CHECKING:
    from holitom.runtime.session import Session

_log = logging.getLogger(__name__)
_lock = threading.RLock()
_of_model: weakref.WeakKeyDictionary[nn.Module, Hooks] = weakref.WeakKeyDictionary()


class Hooks:
    """All hooks on one model. They stay while a session is attached, and until calls that began under one have ended.

    Args:
        adapter: the model's.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.model = adapter, adapter.model
        self.sessions: list[Session] = []
        self._running: dict[int, int] = {}  # by thread, calls and generations under a session
        self._handles: list[Any] = []
        self._layers: set[int] = set()
        self._instead: list[_Instead] = []
        self._warned = False

    @classmethod
    def of(cls, model: nn.Module) -> Hooks | None:
        """The hooks of a model, where there are any."""
        return _of_model.get(model)

    @classmethod
    def attach(cls, session: Session) -> None:
        """Makes a session the innermost one on its model."""
        with _lock:
            hooks = _of_model.get(session.model)
            if hooks is None:
                hooks = _of_model[session.model] = cls(session.adapter)
            hooks.sessions.append(session)
            hooks._install(session)
        _forget_compiled()

    def remove(self, session: Session) -> None:
        """Takes a session away; calls of other threads that began under it end as they began."""
        with _lock:
            if session in self.sessions:
                self.sessions.remove(session)
            self._running.pop(threading.get_ident(), None)
            self._detach_if_idle()

    def current(self) -> Session | None:
        """The session at work in this thread: that of the call in progress, else its innermost, else a shared one."""
        call, generation = self._call(), self._generation()
        if call is not None or generation is not None:
            return (call or generation).session  # type: ignore[union-attr]
        me = threading.get_ident()
        for session in reversed(self.sessions):
            if session.thread == me:
                return session
        for session in reversed(self.sessions):
            if session.shared:
                return session
        if self.sessions and not self._warned:
            self._warned = True
            _log.warning(
                "a thread uses a model on which only another thread has opened a session, so nothing is compressed "
                "here: open one in this thread, or use attach(), which serves all threads"
            )
        return None

    # on and off -------------------------------------------------------------------------------------------------

    def _install(self, session: Session) -> None:
        base, decoder, layers = self.adapter.base, self.adapter.decoder, self.adapter.layers
        if not self._handles:
            self._instead = [
                _Instead(base, self.adapter.encoder, self._encode),
                _Instead(self.model, "generate", self._generate),
                *(_Instead(base, name, self._faster(own)) for name, own in self.adapter.shortcuts().items()),
            ]
            around = ((self.model, self._enter_model), (base, self._enter_base), (decoder, self._enter_decoder))
            for module, enter in around:
                self._handles.append(module.register_forward_pre_hook(_untraced(enter), with_kwargs=True))
                self._handles.append(module.register_forward_hook(_untraced(self._leave), always_call=True))
        first = session.layers[0] if session.layers else len(layers)
        if session.method.mass or (session.positions == "original" and reads_packed(decoder)):
            first = 0
        for number in range(first, len(layers)):
            if number not in self._layers:
                self._layers.add(number)
                hook = _untraced(functools.partial(self._enter_layer, number))
                self._handles.append(layers[number].register_forward_pre_hook(hook, with_kwargs=True))
        if session.method.attention != "none":
            before = 0 if session.method.attention == "coming" else 1
            for number in session.layers:
                watch(layers[number - before].self_attn, self)  # type: ignore[arg-type]

    def _detach_if_idle(self) -> None:
        alive = {thread.ident for thread in threading.enumerate()}
        if self.sessions or any(thread in alive for thread in self._running):
            return
        for handle in [*self._handles, *self._instead]:
            handle.remove()
        self._handles, self._instead = [], []
        release(self)
        if _of_model.get(self.model) is self:
            del _of_model[self.model]
        _forget_compiled()

    def _begin(self) -> None:
        with _lock:
            me = threading.get_ident()
            self._running[me] = self._running.get(me, 0) + 1

    def _end(self) -> None:
        with _lock:
            me = threading.get_ident()
            left = self._running.pop(me, 1) - 1
            if left > 0:
                self._running[me] = left
            elif not self.sessions:
                self._detach_if_idle()

    # one call ---------------------------------------------------------------------------------------------------

    def _call(self) -> Call | None:
        """The call of this model in progress in this thread."""
        call = here.call
        return call if call is not None and call.session.model is self.model else None

    def _generation(self) -> Generation | None:
        generation = here.generation
        while generation is not None and generation.session.model is not self.model:
            generation = generation.outer
        return generation

    def _enter(self, module: nn.Module, around: tuple[nn.Module, ...]) -> Call | None:
        """The call in progress, begun by a module around this one; else a new one under the session at work."""
        call = self._call()
        if call is not None:
            if call.begun_by in around:
                return call
            self._finish(call)  # an interrupt has ended it
        session = self.current()
        if session is None:
            return None
        self._begin()
        here.call = Call(session, module, here.call, self._generation(), reads_prefix=here.reads_prefix)
        return here.call

    def _finish(self, call: Call) -> None:
        here.call = call.outer
        call.observers.clear()  # they hold the call, whose KV cache would wait for the garbage collector
        self._end()

    def _enter_model(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        call = self._enter(model, ())
        if call is not None:
            call.labelled = bound_arguments(model.forward, args, kwargs or {}).get("labels") is not None

    def _enter_base(self, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        call = self._enter(base, (self.model,))
        if call is None:
            return
        arguments = bound_arguments(base.forward, args, kwargs or {})
        self.adapter.check(arguments)
        call.ids, call.mask = arguments.get("input_ids"), arguments.get("attention_mask")
        encoded = arguments.get("mm_encoder_outputs")
        if isinstance(encoded, dict):
            encoded = encoded.get(self.adapter.modality)
        pixels = arguments.get("pixel_values_videos") if self.adapter.modality == "video" else None
        if call.ids is None and (encoded is not None or pixels is not None):
            raise ValueError(
                "a video that comes with inputs_embeds cannot be compressed, because only token ids say where it "
                "stands in the prompt: give input_ids instead, or leave the session for this call"
            )
        if encoded is not None:  # generate() repeats what it has encoded for beams, accelerate moves it: other tensors
            call.layouts = layouts_of(encoded)
            if call.layouts is None and call.generation is not None:
                call.layouts = call.generation.layouts

    def _enter_decoder(
        self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        call = self._enter(decoder, (self.model, self.adapter.base))
        if call is None or args or kwargs is None:
            return None
        changed = enter_decoder(call, decoder, kwargs)
        if call.memory is not None:
            set_open(call.cache, True)
        return None if changed is None else (args, changed)

    def _enter_layer(
        self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        call = self._call()
        if call is None or call.memory is None or kwargs is None:
            return None
        return enter_layer(call, number, layer, args, kwargs)

    def _leave(self, module: nn.Module, _: Any, output: Any = None) -> None:
        """Runs after an exception as well, without an output."""
        call = self._call()
        if call is None:
            return
        if module is self.adapter.decoder and call.memory is not None:
            if output is not None:
                call.memory.dropped += call.dropping
                call.memory.tail = call.tail_tokens
            set_open(call.cache, False)
            call.memory = None
        if call.begun_by is module:
            self._finish(call)

    # around calls -----------------------------------------------------------------------------------------------

    def _faster(self, shortcut: Callable[..., Any]) -> Callable[..., Any]:
        """A shortcut in place of the model's own method, where a session at work wants it."""

        def run(own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            session = self.current()
            stock = session is None or getattr(session.method, "stock", False)
            return own(*args, **kwargs) if stock else shortcut(*args, **kwargs)

        return run

    def _encode(self, encoder: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = self.current()
        if session is None:
            return encoder(*args, **kwargs)
        output, layouts = encode(session, encoder, args, kwargs, self)
        into = self._call() or self._generation()
        if into is not None:
            into.layouts = layouts
        return output

    def _generate(self, generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = self.current()
        if session is None:
            return generate(*args, **kwargs)
        arguments = bound_arguments(generate, args, kwargs)
        ids, mask = arguments.get("input_ids", arguments.get("inputs")), arguments.get("attention_mask")
        generation = Generation(session, here.generation, ids, mask)
        chunk = getattr(arguments.get("generation_config") or self.model.generation_config, "prefill_chunk_size", None)
        generation.in_chunks = arguments.get("prefill_chunk_size", chunk) is not None
        encoded = (arguments.get("mm_encoder_outputs") or {}).get(self.adapter.modality)
        generation.layouts = None if encoded is None else layouts_of(encoded)
        self._begin()
        here.generation = generation
        try:
            return generate(*args, **kwargs)
        finally:
            here.generation = generation.outer
            self._end()


class _Instead:
    """Stands in one instance's ``__dict__`` in front of a method, until :meth:`remove`."""

    def __init__(self, owner: Any, name: str, run: Callable[..., Any]) -> None:
        self.owner, self.name, self.before, self.method = owner, name, owner.__dict__.get(name), getattr(owner, name)
        self.run = _untraced(run)
        functools.update_wrapper(self, self.method)  # generate() reads the signature of what it calls
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.method, args, kwargs)

    def remove(self) -> None:
        """Restores what was there."""
        delattr(self.owner, self.name)
        if self.before is not None:
            setattr(self.owner, self.name, self.before)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError(
            "a model cannot be copied or pickled while a session is attached to it, because the copy would compress as "
            "well, under the session of the original: leave the session first (save_pretrained() works inside it)"
        )


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """In a compiled model hooks run as they are: what they keep must not lie in the memory of a CUDA graph."""
    wrapped: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return wrapped


def _forget_compiled() -> None:
    """What was compiled before knows nothing of hooks that have come or gone since."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
