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
from holitom.models.transformers_names import cache_in
from holitom.runtime.attention import release, watch
from holitom.runtime.cache import CacheMemory, memory_of
from holitom.runtime.call import Call
from holitom.runtime.encoder import encode, layouts_of, note_arguments
from holitom.runtime.layers import enter_layer, reads_packed
from holitom.runtime.method_patch import MethodPatch, bound_arguments, untraced
from holitom.runtime.prefill import enter_decoder
from holitom.runtime.step import begin_step, is_step, step_layer
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
        self._instead: list[MethodPatch] = []
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
                MethodPatch(base, self.adapter.encoder, self._encode),
                MethodPatch(self.model, "generate", self._generate),
                *(MethodPatch(base, name, self._faster(own)) for name, own in self.adapter.shortcuts().items()),
            ]
            around = ((self.model, self._enter_model), (base, self._enter_base), (decoder, self._enter_decoder))
            for module, enter in around:
                self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._leave, with_kwargs=True, always_call=True))
        first = session.layers[0] if session.layers else len(layers)
        if session.method.mass or (session.positions == "original" and reads_packed(decoder)):
            first = 0
        for number in range(first, len(layers)):
            if number not in self._layers:
                self._layers.add(number)
                hook = functools.partial(self._enter_layer, number)
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

    def _enter_model(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not is_step(args, kwargs):
            self._begin_model(model, args, kwargs)

    def _enter_base(self, base: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not is_step(args, kwargs):
            self._begin_base(base, args, kwargs)

    def _enter_decoder(self, decoder: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if args or kwargs.get("inputs_embeds") is None or not is_step(args, kwargs):
            return self._begin_decoder(decoder, args, kwargs)
        memory = memory_of(cache_in(kwargs))
        if memory is None:
            return None
        if not self._can_step(memory, kwargs):
            return self._begin_decoder(decoder, args, kwargs)  # which says why
        return args, begin_step(memory, decoder, kwargs)

    def _can_step(self, memory: CacheMemory, kwargs: dict[str, Any]) -> bool:
        rows, mask = kwargs["inputs_embeds"].shape[0], kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() != 2 and not memory.in_generate:
            return False
        if torch.compiler.is_compiling():  # for any thread and session: the cache says all, given the hooks
            return memory.rows == rows and all(stage.layer in self._layers for stage in memory.stages[1:])
        session = self.current()
        if session is None:
            return False
        memory.check(session.method, session.layers, rows)
        self._begin()
        return True

    def _enter_layer(self, number: int, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        memory = memory_of(cache_in(kwargs))
        if memory is not None and memory.step is not None:
            return step_layer(memory, number, args, kwargs)
        if memory is None and is_step(args, kwargs) and (torch.compiler.is_compiling() or self._call() is None):
            return None
        return self._begin_layer(number, layer, args, kwargs)

    def _leave(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Runs after an exception as well, without an output."""
        memory = memory_of(cache_in(kwargs))
        if memory is not None and memory.step is not None and module is self.adapter.decoder:
            memory.step, memory.open = None, False
            if not torch.compiler.is_compiling():
                self._end()
        elif not (torch.compiler.is_compiling() and is_step(args, kwargs)):
            self._end_call(module, output)

    # the same for calls that are no decode step; compiled models run these as they are: what they keep must not lie in
    # the memory of a CUDA graph

    @untraced
    def _begin_model(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        call = self._enter(model, ())
        if call is not None:
            call.labelled = bound_arguments(model.forward, args, kwargs).get("labels") is not None

    @untraced
    def _begin_base(self, base: Any, args: Any, kwargs: dict[str, Any]) -> None:
        call = self._enter(base, (self.model,))
        if call is not None:
            note_arguments(call, bound_arguments(base.forward, args, kwargs))

    @untraced
    def _begin_decoder(self, decoder: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        call = self._enter(decoder, (self.model, self.adapter.base))
        if call is None or args:
            return None
        changed = enter_decoder(call, decoder, kwargs)
        if call.memory is not None:
            call.memory.open, call.memory.step, call.memory.in_generate = True, None, call.generation is not None
        return None if changed is None else (args, changed)

    @untraced
    def _begin_layer(self, number: int, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        call = self._call()
        return None if call is None or call.memory is None else enter_layer(call, number, layer, args, kwargs)

    @untraced
    def _end_call(self, module: nn.Module, output: Any) -> None:
        call = self._call()
        if call is None:
            return
        if module is self.adapter.decoder and call.memory is not None:
            if output is not None:
                call.memory.dropped += call.dropping
                if call.tail_tokens is not None:
                    call.memory.end = call.memory.stages[0].length - call.tail_tokens
            call.memory.open, call.memory = False, None
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
        timed = session.stage("vision tower")
        output, layouts = encode(session.adapter, session.method, encoder, args, kwargs, self, timed)
        if (into := self._call() or self._generation()) is not None:
            into.layouts = layouts
        return output

    def _generate(self, generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = self.current()
        if session is None:
            return generate(*args, **kwargs)
        arguments = bound_arguments(generate, args, kwargs)
        if session.method.stages:
            self.adapter.check_generate(arguments)
        ids, mask = arguments.get("input_ids", arguments.get("inputs")), arguments.get("attention_mask")
        generation = Generation(session, here.generation, ids, mask)
        chunk = getattr(arguments.get("generation_config") or self.model.generation_config, "prefill_chunk_size", None)
        generation.in_chunks = arguments.get("prefill_chunk_size", chunk) is not None
        generation.layouts = layouts_of((arguments.get("mm_encoder_outputs") or {}).get(self.adapter.modality))
        self._begin()
        here.generation = generation
        try:
            return generate(*args, **kwargs)
        finally:
            here.generation = generation.outer
            self._end()


def _forget_compiled() -> None:
    """What was compiled before knows nothing of hooks that have come or gone since."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
