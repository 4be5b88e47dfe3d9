"""A method at work on a model: attached, watched, and taken off again without a trace."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from typing_extensions import Self

from holitom.cost import CostReport, ModelShape
from holitom.methods.base import Method, Positions
from holitom.models import adapter_for, find_model, tower_name
from holitom.models.placement import dtype_of
from holitom.runtime.hooks import Hooks
from holitom.runtime.mass import require_mass
from holitom.runtime.question import Question, checked
from holitom.runtime.records import PromptRecord, VideoRecord
from holitom.runtime.summary import Summary, tower_flops


class Session:
    """Compresses the videos of one model with one method, as a context manager or until :meth:`remove`.

    Inside, ``generate()`` and ``forward()`` are called as ever: batches, several videos, images and turns included.
    Hidden states and logits of a call with videos cover the tokens that are left, so logits of a compressed prompt are
    shorter than its ids. Sessions may be nested: the innermost one of a thread works, the others wait. A thread that
    has opened none works under one that the main thread has opened, or that was attached.

    Args:
        method: the method.
        model: a transformers video LLM, see ``holitom.models``, or what wraps one: PEFT, DDP, ``torch.compile``, a
            pipeline.
        positions: ``"compact"`` or ``"original"`` instead of the method's own, see :class:`~holitom.methods.Method`.
        timer: an object with ``stage(name) -> context manager`` that is told when the vision tower ("vision tower") and
            the method ("compression") work, as ``holitom.cost.StageTimer``.
        question: the ids of the user's text in the prompt, or of each row's, for methods that look at it; see
            :func:`holitom.question_ids`. ``session.question`` can be set anew before each prompt.

    Raises:
        TypeError: when the model's family is unknown, or the question is no ids.
        ValueError: when the method's inner stage does not fit the model.
    """

    def __init__(
        self,
        method: Method,
        model: Any,
        *,
        positions: Positions | None = None,
        timer: Any = None,
        question: Question | None = None,
    ) -> None:
        if positions not in ("compact", "original", None):
            raise ValueError(f"positions must be 'compact' or 'original', got {positions!r}")
        self.model = model = find_model(model)
        self.adapter = adapter_for(model)
        method = method if positions is None else method.with_positions(positions)
        self.method = method = method.for_tower(tower_name(model.config))
        self.positions, self.timer = method.positions, timer
        self.question = question
        self.layers = method.layers(len(self.adapter.layers))
        if self.layers:
            self.adapter.require_inner(method.name)
        if method.mass:
            require_mass(self.adapter)
        if self.layers and self.layers[0] < self.adapter.first_inner_layer:
            raise ValueError(
                f"{type(model).__name__} adds visual features to the output of its first decoder layers, so tokens "
                f"can be merged in front of layer {self.adapter.first_inner_layer} or later, not {self.layers[0]}"
            )
        self.prompts: list[PromptRecord] = []
        self.thread: int | None = None  # the one that has attached it
        self.shared = False  # whether it serves threads that have opened none
        self.warned = False  # that positions reach beyond what the model was made for

    # what a user asks ------------------------------------------------------------------------------------------

    @property
    def question(self) -> list[list[int]] | None:
        """The ids of one question for all rows, or of one for each row."""
        return self._question

    @question.setter
    def question(self, question: Question | None) -> None:
        self._question = checked(question)

    @property
    def videos(self) -> list[VideoRecord]:
        """The videos of the latest prompt, row by row."""
        return [video for prompt in self.prompts for video in prompt.videos]

    def summary(self) -> Summary:
        """Tokens, FLOPs and KV-cache bytes of the latest prompt that held a video, compressed and full.

        ``cost`` is None for a model whose costs are not known.

        Raises:
            RuntimeError: when no video has been seen yet.
        """
        if not self.prompts:
            waiting = "" if self.active or self.thread is None else " (another session inside this one is at work)"
            raise RuntimeError(f"there is nothing to sum up yet: run the model on a prompt with a video first{waiting}")
        config, prompts = self.adapter.decoder.config, list(self.prompts)
        shape = ModelShape.known(self.model.config)
        if shape is None:
            return Summary(self.method.settings(), prompts, None)
        ran, full = tower_flops(shape, prompts)
        cost = CostReport.of(
            shape,
            [prompt.tokens for prompt in prompts],
            [prompt.by_layer for prompt in prompts],
            [prompt.visual_by_layer for prompt in prompts],
            dtype_of(self.adapter.decoder),
            attention="eager" if config._attn_implementation == "eager" else "sdpa",  # type: ignore[union-attr]
            vision=ran,
            full_vision=full,
        )
        return Summary(self.method.settings(), prompts, cost)

    @property
    def active(self) -> bool:
        """Whether this session is the one at work in this thread."""
        hooks = Hooks.of(self.model)
        return hooks is not None and hooks.current() is self

    def _repr_html_(self) -> str:
        from holitom.report.reprs import session_html  # only where a notebook asks for a picture

        return session_html(self)

    # on and off -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self._attach(threading.current_thread() is threading.main_thread())

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def attach(self) -> Self:
        """Starts compressing, in every thread that has opened no session of its own. Ends with :meth:`remove`.

        Raises:
            RuntimeError: when this session is attached already.
        """
        return self._attach(shared=True)

    def _attach(self, shared: bool) -> Self:
        if self.thread is not None:
            raise RuntimeError("this session is already attached: make another one with method(model)")
        self.thread, self.shared = threading.get_ident(), shared
        try:
            Hooks.attach(self)
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self) -> None:
        """Stops compressing and restores everything. Does nothing the second time.

        What another thread has begun under this session ends under it; the model is restored then.
        """
        hooks, self.thread = Hooks.of(self.model), None
        if hooks is not None:
            hooks.remove(self)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Tells the timer, if there is one, what is being worked on."""
        return nullcontext() if self.timer is None else self.timer.stage(name)
