"""One run of one method: its stages in seconds, its bytes, and what it did to the tokens."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from holitom.bench.memory import peak_memory
from holitom.bench.workload import Workload
from holitom.cost import StageTimer
from holitom.generation import Clock, generate, with_encoded
from holitom.generation import encode as encode_videos
from holitom.methods.base import Method, Need
from holitom.models import adapter_for
from holitom.models.transformers_names import cache_in
from holitom.runtime import Session, Summary

TOWER, COMPRESSION, PREFILL = "vision tower", "compression", "LLM prefill"
FIRST, NEXT = "time to first token", "time per output token"
STAGES = (TOWER, COMPRESSION, PREFILL, FIRST, NEXT)

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "process": time.process_time}
"""By what time is measured. "process" is the processor time of this process: on a CPU that others use too, it says what
the work takes where the wall clock says how long it waited. With several threads it adds them up."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Videos that went through the vision tower once: the encoder's output and the seconds it took."""

    output: Any
    seconds: float


@dataclass(frozen=True, eq=False)
class Run:
    """One repetition.

    Attributes:
        seconds: by stage, see ``STAGES``; the first three add up to the time to first token. The time per output token
            is the median over the answer's steps, and missing where the answer has one token.
        kv_cache_bytes: keys and values of the whole batch, measured when the prompt had been read.
        peak_bytes: most memory held at once; None where unknown.
        peak_above: how far that is above what was held before; None where unknown.
        summary: what became of the tokens.
    """

    seconds: dict[str, float]
    kv_cache_bytes: int
    peak_bytes: int | None
    peak_above: int | None
    summary: Summary

    def figures(self) -> dict[str, float | None]:
        """The measured numbers, flat, ready for JSON."""
        return {
            **self.seconds,
            "kv_cache_bytes": self.kv_cache_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_above": self.peak_above,
        }


def encode(workload: Workload, needs: frozenset[Need], clock: Clock = time.perf_counter) -> Encoded:
    """The vision tower alone, showing what methods with these needs read."""
    timer = StageTimer(workload.device, clock=clock)
    output = encode_videos(workload.model, workload.pixels, needs, timer)
    return Encoded(output, timer.totals()[TOWER])


def measure(
    workload: Workload,
    method: Method,
    encoded: Encoded | None = None,
    timer: Any = None,
    clock: Clock = time.perf_counter,
) -> Run:
    """Read the prompt and write the answer, by ``generate()``, as anybody would.

    Args:
        workload: the model and the prompts.
        method: to measure.
        encoded: from :func:`encode`; then the tower does not run again, and its seconds from there are used.
        timer: in place of the stage timer, to profile; the seconds of the stages are then unknown, and 0.
        clock: one of ``CLOCKS``.

    Raises:
        Exception: whatever the model or the method raise, for lack of memory for example.
    """
    model, device, adapter = workload.model, workload.device, adapter_for(workload.model)
    inputs: dict[str, Any] = dict(workload.inputs)
    if encoded is not None:
        inputs = with_encoded(model, inputs, encoded.output)
    if model.generation_config.eos_token_id is not None:
        inputs["min_new_tokens"] = workload.answer
    stages, sizes = StageTimer(device, clock=clock), list[int]()

    def note_size(decoder: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not sizes and (cache := cache_in(kwargs)) is not None:  # once, when it holds the prompt
            sizes.append(_bytes_of(cache))

    watching = adapter.decoder.register_forward_hook(note_size, with_kwargs=True)
    try:
        session = Session(method, model, timer=timer or stages, question=workload.question)
        with session, peak_memory(device) as peak:
            made = generate(session, inputs, clock, max_new_tokens=workload.answer)
    finally:
        watching.remove()
    totals = stages.totals()
    inside = totals.get(TOWER, 0.0)  # the tower's time within this call
    tower, compression = inside if encoded is None else encoded.seconds, totals.get(COMPRESSION, 0.0)
    prefill = made.first - inside - compression
    seconds = {TOWER: tower, COMPRESSION: compression, PREFILL: prefill, FIRST: tower + compression + prefill}
    if workload.answer > 1:
        seconds[NEXT] = statistics.median(made.steps)
    return Run(seconds, sum(sizes), peak.total, peak.above, session.summary())


def measure_compiled(
    workload: Workload, method: Method, backend: str, repeats: int, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Seconds of a decode step of a compiled model.

    The session stays open from the first answer to the last, because opening one throws compiled code away. So methods
    do not take turns here.

    Args:
        workload: with an answer of at least two tokens.
        method: to measure.
        backend: of ``torch.compile``: "inductor" is what ``generate()`` takes by itself, with CUDA graphs; others take
            less time to compile.
        repeats: answers that are measured, after one in which the step is compiled.
        clock: one of ``CLOCKS``.

    Returns:
        ``seconds``: for each answer the median over its steps, because the first ones record a CUDA graph;
        ``first_answer``: seconds until the first answer was there, which is mostly the time to compile.
    """
    from transformers import CompileConfig

    settings = CompileConfig(backend=backend, mode="reduce-overhead" if backend == "inductor" else None)
    settings._compile_all_devices = True  # on a CPU too
    options = {"max_new_tokens": workload.answer, "cache_implementation": "static", "compile_config": settings}
    if workload.model.generation_config.eos_token_id is not None:
        options["min_new_tokens"] = workload.answer
    with Session(method, workload.model, question=workload.question) as session:
        made = [generate(session, workload.inputs, clock, **options) for _ in range(repeats + 1)]
    return {
        "backend": backend,
        "seconds": [statistics.median(each.steps) for each in made[1:]],
        "first_answer": made[0].seconds,
    }


def _bytes_of(cache: Any) -> int:
    """Bytes of the keys and values in a KV cache."""
    held = (getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values"))
    return sum(part.nbytes for part in held if isinstance(part, torch.Tensor))
