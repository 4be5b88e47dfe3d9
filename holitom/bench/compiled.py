"""Compiled decoding: what ``generate()`` does with a static cache on a GPU, measured."""

from __future__ import annotations

import statistics
import time
from typing import Any

from holitom.bench.workload import Workload
from holitom.generation import Clock, generate
from holitom.methods.base import Method
from holitom.runtime import Session


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
        clock: one of ``holitom.bench.measure.CLOCKS``.

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
