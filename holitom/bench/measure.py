"""One run of one method: its stages in seconds, its bytes, and what it did to the tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from holitom.bench.memory import peak_memory
from holitom.bench.workload import Workload
from holitom.cost import StageTimer, synchronize
from holitom.methods.base import Method, Need
from holitom.models import adapter_for
from holitom.models.transformers_names import cache_in
from holitom.runtime import Session, Summary

TOWER, COMPRESSION, PREFILL = "vision tower", "compression", "LLM prefill"
FIRST, NEXT = "time to first token", "time per output token"
STAGES = (TOWER, COMPRESSION, PREFILL, FIRST, NEXT)

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "process": time.process_time}
"""By what time is measured. "process" is the processor time of this process: on a CPU that others use too, it says what
the work takes where the wall clock says how long it waited. With several threads it adds them up."""


@dataclass(frozen=True)
class Encoding(Method):
    """Keeps everything; the vision tower shows what the methods to come need."""

    name: ClassVar[str] = "encoding"
    wanted: frozenset[Need] = frozenset()

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        """What the tower has to show."""
        return self.wanted


@dataclass(frozen=True, eq=False)
class Encoded:
    """Videos that went through the vision tower once: the encoder's output and the seconds it took."""

    output: Any
    seconds: float


@dataclass(frozen=True, eq=False)
class Run:
    """One repetition.

    Attributes:
        seconds: by stage, see ``STAGES``; the first three add up to the time to first token. No time per output token
            where the answer has one token.
        kv_cache_bytes: keys and values of the whole batch, measured when the prompt had been read.
        peak_bytes, peak_above: most memory held, in all and above what was held before; None where unknown.
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


@torch.inference_mode()
def encode(workload: Workload, needs: frozenset[Need], clock: Clock = time.perf_counter) -> Encoded:
    """The vision tower alone, showing what methods with these needs read."""
    adapter = adapter_for(workload.model)
    timer = StageTimer(workload.device, clock=clock)
    with Session(Encoding(wanted=needs), workload.model, timer=timer):
        output = getattr(adapter.base, adapter.encoder)(**workload.pixels, return_dict=True)
    return Encoded(output, timer.totals()[TOWER])


@torch.inference_mode()
def measure(
    workload: Workload,
    method: Method,
    encoded: Encoded | None = None,
    timer: Any = None,
    clock: Clock = time.perf_counter,
) -> Run:
    """Read the prompt and write the answer, by ``generate()``, as anybody would.

    Args:
        encoded: from :func:`encode`; then the tower does not run again, and its seconds from there are used.
        timer: in place of the stage timer, to profile; the seconds of the stages are then unknown, and 0.
        clock: one of ``CLOCKS``.

    Raises:
        whatever the model or the method raise, for lack of memory for example.
    """
    model, device, adapter = workload.model, workload.device, adapter_for(workload.model)
    inputs: dict[str, Any] = dict(workload.inputs)
    if encoded is not None:
        inputs = {name: value for name, value in inputs.items() if not value.is_floating_point()}
        inputs["mm_encoder_outputs"] = {adapter.modality: encoded.output}
    if model.generation_config.eos_token_id is not None:
        inputs["min_new_tokens"] = workload.answer
    stages = StageTimer(device, clock=clock)
    first, cache = _FirstToken(device, clock), _CacheSize()
    watching = adapter.decoder.register_forward_hook(cache, with_kwargs=True)
    try:
        with Session(method, model, timer=timer or stages) as session, peak_memory(device) as peak:
            synchronize(device)
            start = clock()
            model.generate(**inputs, do_sample=False, max_new_tokens=workload.answer, stopping_criteria=[first])
            synchronize(device)
            end = clock()
        summary = session.summary()
    finally:
        watching.remove()
    totals = stages.totals()
    arrived = first.time if first.time is not None else end
    inside = totals.get(TOWER, 0.0)  # the tower's time within this call
    tower, compression = inside if encoded is None else encoded.seconds, totals.get(COMPRESSION, 0.0)
    prefill = arrived - start - inside - compression
    seconds = {TOWER: tower, COMPRESSION: compression, PREFILL: prefill, FIRST: tower + compression + prefill}
    if workload.answer > 1:
        seconds[NEXT] = (end - arrived) / (workload.answer - 1)
    return Run(seconds, cache.bytes, peak.total, peak.above, summary)


class _FirstToken:
    """A stopping criterion that never stops, and notes when it is first asked."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device, self.clock = device, clock
        self.time: float | None = None

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if self.time is None:
            synchronize(self.device)
            self.time = self.clock()
        return ids.new_zeros(len(ids), dtype=torch.bool)


class _CacheSize:
    """A hook behind the decoder that adds up the cache once, when it holds the prompt."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, decoder: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        cache = cache_in(kwargs)
        if self.bytes or cache is None:
            return
        self.bytes = sum(
            part.numel() * part.element_size()
            for layer in cache.layers
            for part in (getattr(layer, "keys", None), getattr(layer, "values", None))
            if isinstance(part, torch.Tensor)
        )
