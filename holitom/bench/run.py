"""All methods in turns: round after round, and a method that fails never costs the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from holitom.bench.compiled import measure_compiled
from holitom.bench.machine import machine
from holitom.bench.measure import CLOCKS, Encoded, Run, encode, measure
from holitom.bench.memory import release_memory
from holitom.bench.results import BASELINE, Report
from holitom.bench.workload import Workload
from holitom.cost import CostReport, interleave
from holitom.evaluation import label
from holitom.methods.base import Method, Need
from holitom.methods.baselines import Uncompressed

logger = logging.getLogger(__name__)


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
    encoded: dict[frozenset[Need], Encoded] | None = {} if share_tower else None
    for turn in range(-int(report.settings["warmup"]), missing):
        one = _Round(workload, report, encoded, done)
        alive = [method for method in methods if label(method) not in report.failures]
        interleave({label(each): one.attempt(each) for each in alive}, 1, 0, device=workload.device)
        if turn >= 0 and one.runs:
            report.rounds.append({name: run.figures() for name, run in one.runs.items()})
        for name, run in one.runs.items():
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
    clock = CLOCKS[report.settings.get("clock", "wall")]
    for method in methods:
        name = label(method)
        if name in report.failures or name in report.compiled:
            continue
        try:
            found = measure_compiled(workload, method, report.settings["compile"], report.settings["repeats"], clock)
            report.compiled[name] = found
        except (RuntimeError, ValueError, TypeError, MemoryError, NotImplementedError) as error:
            report.failures[f"{name}, compiled"] = why(error)
            release_memory(workload.device)
        done(f"{name}, compiled")
        save(report)
    return report


class _Round:
    """One turn of all methods."""

    def __init__(
        self,
        workload: Workload,
        report: Report,
        encoded: dict[frozenset[Need], Encoded] | None,
        done: Callable[[str], None],
    ) -> None:
        self.workload, self.report, self.encoded, self.done = workload, report, encoded, done
        self.clock = CLOCKS[report.settings.get("clock", "wall")]
        self.runs: dict[str, Run] = {}

    def attempt(self, method: Method) -> Callable[[], None]:
        """A function that measures the method, or writes down why it could not."""

        def run() -> None:
            name = label(method)
            try:
                self.runs[name] = measure(self.workload, method, self._encoded(method), clock=self.clock)
            except (RuntimeError, ValueError, TypeError, MemoryError, NotImplementedError) as error:
                self.report.failures[name] = why(error)
                logger.info("%s failed: %s", name, self.report.failures[name])
                release_memory(self.workload.device)
            self.done(name)

        return run

    def _encoded(self, method: Method) -> Encoded | None:
        if self.encoded is None or "tower" in method.stages:
            return None  # whose tower gives other features, in its own time
        for needs, encoded in self.encoded.items():
            if needs == method.needs or (method.needs and method.needs <= needs):
                return encoded
        self.encoded[method.needs] = encode(self.workload, method.needs, self.clock)
        return self.encoded[method.needs]


def why(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def facts(run: Run) -> dict[str, Any]:
    """What one run says about all runs of its method: settings, tokens by layer, FLOPs; of the whole batch."""
    summary = run.summary
    full, entering, leaving = summary.visual_tokens
    layers = list(zip(*(prompt.by_layer for prompt in summary.prompts), strict=True))
    visual = list(zip(*(prompt.visual_by_layer for prompt in summary.prompts), strict=True))
    return {
        "method": summary.method,
        "visual_tokens": {
            "full": full,
            "entering": entering,
            "leaving": leaving,
            "mean": summary.mean_visual_tokens,
        },
        "segments": summary.segments,
        "tokens_per_layer": [sum(layer) for layer in layers],
        "visual_per_layer": [sum(layer) for layer in visual],
        **({} if summary.cost is None else _cost(summary.cost)),
    }


def _cost(cost: CostReport) -> dict[str, Any]:
    return {"cost": asdict(cost.compressed), "cost_ratios": cost.ratios}
