"""Where the time goes: a torch profiler trace with the stages marked in it, and a summary by stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from holitom.bench.measure import COMPRESSION, TOWER, measure
from holitom.bench.workload import Workload
from holitom.evaluation import label
from holitom.methods.base import Method

DECODER = "LLM"
HEAVIEST, LONGEST = 15, 8  # operations and gaps in the summary


def profile(workload: Workload, method: Method, folder: Path) -> dict[str, Any]:
    """Profile one prompt and its answer, after one run to warm up.

    Writes ``trace-<method>.json`` (for chrome://tracing or Perfetto) and ``operations-<method>.txt``.

    Returns:
        Seconds on the host by stage ("LLM" is every call of the decoder, the answer's tokens included), seconds on the
        device where there is one, the heaviest operations, how long the device had nothing to do and the longest such
        gaps (see :func:`gaps`), and the trace's file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.=-]+", "-", label(method))
    measure(workload, method)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if workload.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with _decoder_marked(workload.model), torch.profiler.profile(activities=activities) as seen:
        measure(workload, method, timer=SimpleNamespace(stage=torch.profiler.record_function))  # waits for no device
    seen.export_chrome_trace(str(folder / f"trace-{name}.json"))
    averages = seen.key_averages()
    key = "self_device_time_total" if workload.device.type == "cuda" else "self_cpu_time_total"
    (folder / f"operations-{name}.txt").write_text(averages.table(sort_by=key, row_limit=40) + "\n")
    stages, marked = {}, (TOWER, COMPRESSION, DECODER)
    for event in averages:
        if event.key in marked and (event.key not in stages or event.cpu_time_total > 0):
            stages[event.key] = {
                "host": event.cpu_time_total / 1e6,
                "device": getattr(event, "device_time_total", 0) / 1e6 if workload.device.type == "cuda" else None,
                "calls": event.count,
            }
    heavy = sorted((e for e in averages if e.key not in marked), key=lambda e: getattr(e, key), reverse=True)[:HEAVIEST]
    return {
        "stages": stages,
        "operations": [{"name": e.key, "seconds": getattr(e, key) / 1e6, "calls": e.count} for e in heavy],
        **gaps(seen.events(), workload.device.type),
        "trace": f"trace-{name}.json",
    }


def gaps(events: Any, device: str) -> dict[str, Any]:
    """Where a device had nothing to do.

    Args:
        events: of a profile.
        device: "cuda", or "cpu": between operations then.

    Returns:
        ``span``: seconds from its first operation to the end of its last one; ``idle``: those of them without any;
        ``gaps``: the longest, each with its seconds, the operations around it, and what the host was doing.
    """
    host = [event for event in events if event.device_type.name == "CPU"]
    leaves = [event for event in host if not event.cpu_children]
    on_device = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    work = on_device if device == "cuda" else leaves
    work.sort(key=lambda event: event.time_range.start)
    found: list[tuple[float, Any, Any]] = []
    last: Any = work[0] if work else None
    for event in work:
        if event.time_range.start > last.time_range.end:
            found.append((event.time_range.start - last.time_range.end, last, event))
        if event.time_range.end > last.time_range.end:
            last = event
    found.sort(key=lambda gap: gap[0], reverse=True)
    return {
        "span": (last.time_range.end - work[0].time_range.start) / 1e6 if work else 0.0,
        "idle": sum(gap for gap, _, _ in found) / 1e6,
        "gaps": [
            {
                "seconds": gap / 1e6,
                "after": before.name[:80],
                "before": then.name[:80],
                "host": _at(host, (before.time_range.end + then.time_range.start) / 2),
            }
            for gap, before, then in found[:LONGEST]
        ],
    }


def _at(host: list[Any], moment: float) -> str:
    """The innermost operation of the host at a moment; "" where it is none that torch knows."""
    there = [event for event in host if event.time_range.start <= moment <= event.time_range.end]
    return min(there, key=lambda event: event.time_range.elapsed_us()).name[:80] if there else ""


@contextmanager
def _decoder_marked(model: Any) -> Iterator[None]:
    """Marks every call of the decoder."""
    marks: list[ExitStack] = []

    def enter(*_: Any) -> None:
        marks.append(ExitStack())
        marks[-1].enter_context(torch.profiler.record_function(DECODER))

    def leave(*_: Any) -> None:
        marks.pop().close()

    decoder = model.get_decoder()
    hooks = [decoder.register_forward_pre_hook(enter), decoder.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
