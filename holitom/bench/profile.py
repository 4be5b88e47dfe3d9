"""Where the time goes: a torch profiler trace with the stages marked in it, and a summary by stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from holitom.bench.measure import COMPRESSION, TOWER, measure
from holitom.bench.workload import Workload
from holitom.evaluation import label
from holitom.methods.base import Method

DECODER = "LLM"
HEAVIEST = 15  # operations in the summary


class _Marks:
    """A session's timer that marks stages in the trace, without waiting for the device."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with torch.profiler.record_function(name):
            yield


def profile(workload: Workload, method: Method, folder: Path) -> dict[str, Any]:
    """Profile one prompt and its answer, after one run to warm up.

    Writes ``trace-<method>.json`` (for chrome://tracing or Perfetto) and ``operations-<method>.txt``.

    Returns:
        Seconds on the host by stage ("LLM" is every call of the decoder, the answer's tokens included), seconds on the
        device where there is one, the heaviest operations, and the trace's file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.=-]+", "-", label(method))
    measure(workload, method)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if workload.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with _decoder_marked(workload.model), torch.profiler.profile(activities=activities) as seen:
        measure(workload, method, timer=_Marks())
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
        "trace": f"trace-{name}.json",
    }


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
