"""More and more frames until memory ends: how far each method gets, and how each stage grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from holitom.bench.measure import STAGES, Run, measure
from holitom.bench.memory import free_memory, release_memory
from holitom.bench.run import FAILURES, encoded_once, why
from holitom.bench.workload import Workload
from holitom.evaluation import label
from holitom.methods.base import Method

MARGIN = 1.25  # a CPU run starts only if this many times what it should need is free: there, memory's end ends us too


def sweep(
    make: Callable[[int], Workload],
    methods: Sequence[Method],
    *,
    start: int = 8,
    limit: int | None = None,
    repeats: int = 1,
    share_tower: bool = False,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    done: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Double the frames until each method has failed or ``limit`` is reached, then close in on where it failed.

    Args:
        make: the workload for a number of frames.
        methods: each goes as far as it can.
        start: the first number of frames.
        limit: the last one; None: as far as memory goes.
        repeats: runs at each point, of which the fastest counts.
        share_tower: see :func:`holitom.bench.bench`.
        save: called with what is known after each point.
        done: told each point.

    Returns:
        ``points``: label, frames, seconds by stage, bytes; ``ends``: by label the most frames that worked, the fewest
        that did not, and why (None where the limit came first); ``exponents``: by label and stage the slope of the
        logarithms, 1 for a stage that grows as the frames do.
    """
    if start < 1 or repeats < 1 or (limit is not None and limit < start):
        raise ValueError(
            f"start and repeats must be at least 1 and limit at least start, got {start}, {repeats}, {limit}"
        )
    state = _Sweep(make, repeats, share_tower, save, done)
    alive, count = list(methods), start
    state.attempt(alive[0], start, warmup=True)
    while alive:
        alive = [method for method in alive if state.attempt(method, count)]
        if count == limit:
            break
        count = 2 * count if limit is None else min(2 * count, limit)
    for method in methods:
        end = state.ends[label(method)]
        while (
            end["failed"] is not None and end["frames"] and end["failed"] - end["frames"] > max(1, end["frames"] // 8)
        ):
            state.attempt(method, (end["frames"] + end["failed"]) // 2)
    return state.as_dict()


def exponent(frames: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The slope of log seconds over log frames by least squares; None for fewer than three points or no time at all."""
    if len(set(frames)) < 3 or any(value <= 0 for value in seconds):
        return None
    x, y = [math.log(value) for value in frames], [math.log(value) for value in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean_x) ** 2 for a in x)


class _Sweep:
    """What is known so far."""

    def __init__(self, make: Any, repeats: int, share: bool, save: Any, done: Any) -> None:
        self.make, self.repeats, self.share, self.save, self.done = make, repeats, share, save, done
        self.points: list[dict[str, Any]] = []
        self.ends: dict[str, dict[str, Any]] = {}
        self.built: tuple[int, Workload | None, dict[Any, Any]] = (0, None, {})

    def attempt(self, method: Method, frames: int, warmup: bool = False) -> bool:
        """One point; whether it worked."""
        name = label(method)
        end = self.ends.setdefault(name, {"frames": 0, "failed": None, "why": None})
        try:
            self._require_memory(name, frames)
            run = min(
                (self._run(method, frames) for _ in range(self.repeats)), key=lambda each: sum(each.seconds.values())
            )
        except FAILURES as error:
            end["failed"], end["why"] = frames, why(error)
            workload = self.built[1]
            self.built = (0, None, {})
            if workload is not None:
                release_memory(workload.device)
            self.done(f"{name}, {frames} frames: {end['why']}")
            self.save(self.as_dict())
            return False
        if warmup:
            return True
        end["frames"] = max(end["frames"], frames)
        full, entering, _ = run.summary.visual_tokens
        tokens = {"full": full, "entering": entering, "mean": run.summary.mean_visual_tokens}
        self.points.append({"label": name, "frames": frames, "visual_tokens": tokens, **run.figures()})
        self.done(f"{name}, {frames} frames")
        self.save(self.as_dict())
        return True

    def _run(self, method: Method, frames: int) -> Run:
        held, workload, encoded = self.built
        if workload is None or held != frames:
            self.built = (0, None, {})
            del workload  # let go of the old one before the new one is made
            workload, encoded = self.make(frames), {}
            self.built = (frames, workload, encoded)
        return measure(workload, method, encoded_once(workload, method, encoded) if self.share else None)

    def _require_memory(self, name: str, frames: int) -> None:
        """Refuses a run on a CPU that would likely not fit: the system would end the process instead of raising."""
        mine = [point for point in self.points if point["label"] == name and point["peak_above"]]
        workload = self.built[1]
        if not mine or workload is None or workload.device.type != "cpu":
            return
        last = max(mine, key=lambda point: point["frames"])
        needed, free = MARGIN * last["peak_above"] * frames / last["frames"], free_memory(workload.device)
        if free is not None and needed > free:
            raise MemoryError(
                f"{frames} frames would take about {needed / 1e9:.1f} GB, of which {free / 1e9:.1f} are free"
            )

    def as_dict(self) -> dict[str, Any]:
        """Points, ends and exponents, ready for JSON."""
        exponents: dict[str, dict[str, float]] = {}
        for name in self.ends:
            for stage in STAGES:
                mine = [point for point in self.points if point["label"] == name and stage in point]
                slope = exponent([point["frames"] for point in mine], [point[stage] for point in mine])
                if slope is not None:
                    exponents.setdefault(name, {})[stage] = slope
        return {"points": self.points, "ends": self.ends, "exponents": exponents}
