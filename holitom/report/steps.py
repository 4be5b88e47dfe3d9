"""HoliTom step by step: its four steps on one clip, as numbers and as what the page's script draws of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from holitom.report.trace import Trace


@dataclass(frozen=True)
class Steps:
    """The first run of HoliTom in a trace, step by step.

    Args:
        run: which run of the trace it is.
        segment: the (first, last) frame of the segment in which merging over time saves most.
        static: positions of the grid that stay alike throughout that segment.
        tokens: how many there are at first, after merging over time, on entering the LLM, and after its inner stage;
            the last one is missing without an inner stage. Lines' ends, which some models add, do not count.
        layer: in front of which the inner stage works, or None.
    """

    run: int
    segment: tuple[int, int]
    static: tuple[int, ...]
    tokens: tuple[int, ...]
    layer: int | None


def steps_of(trace: Trace) -> Steps | None:
    """The four steps, or None where HoliTom is not among the runs."""
    for number, run in enumerate(trace.runs):
        spans, threshold = run.record.merge.spans, run.threshold
        if run.answer.summary.name != "holitom" or not spans or threshold is None or run.gains is None:
            continue
        gains = run.gains
        best = max(range(len(spans)), key=lambda index: (gains[index], spans[index][1] - spans[index][0]))
        first, last = spans[best]
        static: tuple[int, ...] = ()
        if last > first:
            alike = (trace.similarity[first:last] > threshold).all(0)
            static = tuple(torch.nonzero(alike).flatten().tolist())
        full = trace.frames * trace.grid[0] * trace.grid[1]
        layer = next((stage.layer for stage in run.stages if stage.layer is not None), None)
        left = [int((stage.merge.anchor >= 0).sum()) for stage in run.stages]
        tokens = (full, full - sum(gains), left[0], *([] if layer is None else [left[-1]]))
        return Steps(number, (first, last), static, tokens, layer)
    return None
