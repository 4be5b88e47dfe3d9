"""All methods in turns: round after round, and a method that fails never costs the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from holitom.bench.machine import machine
from holitom.bench.measure import CLOCKS, Encoded, Run, encode, measure, measure_compiled
from holitom.bench.memory import release_memory
from holitom.bench.results import BASELINE, Report
from holitom.bench.workload import Workload
from holitom.evaluation import label
from holitom.generation import Clock
from holitom.methods.base import Method, Need
from holitom.methods.baselines import Uncompressed

logger = logging.getLogger(__name__)

FAILURES = (RuntimeError, ValueError, TypeError, MemoryError)
"""What ends the measurement of one method and not those of the others."""


def fresh_report(workload: Workload, settings: dict[str, Any], methods: Sequence[Method]) -> Report:
    """A report without rounds."""
    model = workload.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Report(
        settings={**settings, "methods": [label(method) for method in methods]},
        machine=machine(workload.device),
        model={
            "class": type(model).__name__,
            "parameters": parameters,
            "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
            "layers": len(model.get_decoder().layers),
            "vision_flops": workload.vision_flops,
        },
    )


def bench(
    workload: Workload,
    methods: Sequence[Method],
    report: Report,
    *,
    share_tower: bool = False,
    save: Callable[[Report], None] = lambda _: None,
    done: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run the rounds that the report does not have yet, after its settings' number of warm-up rounds.

    Args:
        workload: the model and the prompts.
        methods: the uncompressed model (:class:`holitom.methods.Uncompressed`) among them, to compare with.
        report: from :func:`fresh_report`, or one to go on with.
        share_tower: encode once for all methods that need the same of the vision tower (or a part of what another one
            before them needs), and use its time for each of their runs, instead of encoding for every run: for
            machines on which the tower takes minutes.
        save: called after each round.
        done: told the label of each finished run.

    Raises:
        ValueError: when the uncompressed model is not among the methods.
    """
    if not any(isinstance(method, Uncompressed) for method in methods):
        raise ValueError("the uncompressed model must be among the methods: everything is compared with it")
    missing = report.settings["repeats"] - len(report.rounds)
    if missing <= 0:
        return report
    clock, encoded = _clock(report), dict[frozenset[Need], Encoded]()
    for turn in range(-int(report.settings["warmup"]), missing):
        runs: dict[str, Run] = {}
        for method in methods:
            name = label(method)
            if name in report.failures:
                continue
            try:
                shared = encoded_once(workload, method, encoded, clock) if share_tower else None
                runs[name] = measure(workload, method, shared, clock=clock)
            except FAILURES as error:
                _note_failure(report, name, error, workload)
            done(name)
        if turn >= 0 and runs:
            report.rounds.append({name: run.figures() for name, run in runs.items()})
        for name, run in runs.items():
            report.methods.setdefault(name, facts(run))
        save(report)
        if BASELINE in report.failures:
            break
    return report


def bench_compiled(
    workload: Workload,
    methods: Sequence[Method],
    report: Report,
    *,
    save: Callable[[Report], None] = lambda _: None,
    done: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure compiled decoding, method after method, where the report does not have it yet.

    Args:
        workload: the model and the prompts.
        methods: to measure.
        report: whose setting ``compile`` is the backend.
        save: called after each method.
        done: told the label of each.
    """
    backend, repeats = report.settings["compile"], report.settings["repeats"]
    for method in methods:
        name = label(method)
        if name in report.failures or name in report.compiled:
            continue
        try:
            report.compiled[name] = measure_compiled(workload, method, backend, repeats, _clock(report))
        except FAILURES as error:
            _note_failure(report, f"{name}, compiled", error, workload)
        done(f"{name}, compiled")
        save(report)
    return report


def encoded_once(
    workload: Workload, method: Method, encoded: dict[frozenset[Need], Encoded], clock: Clock = time.perf_counter
) -> Encoded | None:
    """The videos as they went through the vision tower for an earlier method with the same needs, or more.

    None for a method with a stage inside the tower, which gives other features, in its own time.

    Args:
        workload: the model and the prompts.
        method: the next one.
        encoded: what there is, by needs; gets what is new.
        clock: one of ``CLOCKS``.
    """
    if "tower" in method.stages:
        return None
    for needs, found in encoded.items():
        if needs == method.needs or (method.needs and method.needs <= needs):
            return found
    encoded[method.needs] = encode(workload, method.needs, clock)
    return encoded[method.needs]


def _clock(report: Report) -> Clock:
    return CLOCKS[report.settings.get("clock", "wall")]


def _note_failure(report: Report, name: str, error: Exception, workload: Workload) -> None:
    report.failures[name] = why(error)
    logger.info("%s failed: %s", name, report.failures[name])
    release_memory(workload.device)


def why(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def facts(run: Run) -> dict[str, Any]:
    """What one run says about all runs of its method: settings, tokens by layer, FLOPs; of the whole batch."""
    summary, cost = run.summary, run.summary.cost
    found = summary.as_dict()
    layers = list(zip(*(prompt.by_layer for prompt in summary.prompts), strict=True))
    visual = list(zip(*(prompt.visual_by_layer for prompt in summary.prompts), strict=True))
    return {
        **{name: found[name] for name in ("method", "visual_tokens", "segments")},
        "tokens_per_layer": [sum(layer) for layer in layers],
        "visual_per_layer": [sum(layer) for layer in visual],
        **({} if cost is None else {"cost": asdict(cost.compressed), "cost_ratios": cost.ratios}),
    }
