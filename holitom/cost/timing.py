"""Timers that wait for the device: stages of one run, and runs compared in turns.

Devices work behind the program's back: a clock read after a launch measures the launch. Every reading here is taken
after the device has finished what it was given.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has done all it was given: cuda, mps, xpu or any other accelerator; nothing on a CPU.

    Raises:
        ValueError: where torch offers no way to wait for the device.
    """
    _waiter(device)()


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one thing.

    Attributes:
        seconds: one duration for each repetition, in the order of measurement.
    """

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError("a Sample needs at least one measurement")

    @property
    def median(self) -> float:
        """Seconds of the repetition in the middle."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """Seconds of the fastest repetition, the one least disturbed."""
        return min(self.seconds)

    @property
    def maximum(self) -> float:
        """Seconds of the slowest repetition."""
        return max(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median: 0.02 is steady, 0.5 is noise; 0 for one repetition."""
        if len(self.seconds) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median if self.median else 0.0

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """Ready for JSON, the single durations included."""
        return {
            "median": self.median,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "spread": self.spread,
            "repeats": len(self.seconds),
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline, from rounds measured side by side.

    Attributes:
        median: the ratio of the round in the middle; above 1 is faster than the baseline.
        minimum: the ratio of the worst round.
        maximum: the ratio of the best round.
    """

    median: float
    minimum: float
    maximum: float

    def as_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return {"median": self.median, "minimum": self.minimum, "maximum": self.maximum}


class StageTimer:
    """Times the stages of a run by name, also nested ones and ones that happen many times.

    ::

        timer = StageTimer("cuda")
        with timer.stage("answer"):
            model.generate(**inputs)
        timer.totals()      # {"answer": 1.93}

    The waiting at both ends of a stage takes away overlap between stages, so the time of a whole run is best measured
    without inner stages, by :func:`interleave`. One timer serves one thread.

    Args:
        device: where the work runs.
        synchronize: waits for the device in place of :func:`synchronize`.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        synchronize: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._wait = synchronize or _waiter(device)
        self._clock = clock
        self._running: list[str] = []
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block. Inside another stage its name becomes ``outer/name``. A block that raises is not recorded."""
        if not name or "/" in name:
            raise ValueError(f"a stage's name must not be empty nor hold '/', got {name!r}")
        self._running.append(name)
        path = "/".join(self._running)
        try:
            self._wait()
            start = self._clock()
            yield
            self._wait()
            self._seconds[path] = self._seconds.get(path, 0.0) + self._clock() - start
        finally:
            self._running.pop()

    def totals(self) -> dict[str, float]:
        """Seconds of each stage over all its times, inner stages included, in the order in which they first ended."""
        return dict(self._seconds)


def interleave(
    runs: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    *,
    device: torch.device | str = "cpu",
    synchronize: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Sample]:
    """Time several runs in turns, A B C A B C, so that a slow minute of the machine hits all of them alike.

    Args:
        runs: name to function, called without arguments; what it returns is dropped before the next starts.
        repeats: measured rounds.
        warmup: rounds before them that are not measured.
        device: where the work runs.
        synchronize: waits for the device in place of :func:`synchronize`.
        clock: seconds that never run backwards.

    Returns:
        A sample of ``repeats`` durations for each name; hand it to :func:`ratios`.
    """
    if not runs:
        raise ValueError("runs is empty: give at least one function to time")
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    wait = synchronize or _waiter(device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            wait()
            started = clock()
            run()
            wait()
            elapsed = clock() - started
            if turn >= warmup:
                seconds[name].append(elapsed)
    return {name: Sample(tuple(values)) for name, values in seconds.items()}


def ratios(samples: Mapping[str, Sample], baseline: str) -> dict[str, Ratio]:
    """Speed-ups over the baseline, round by round: seconds of the baseline over seconds of the run in the same round.

    Args:
        samples: from :func:`interleave`.
        baseline: the name to compare with; its own ratio is 1.
    """
    if baseline not in samples:
        raise ValueError(f"baseline {baseline!r} was not measured; measured: {', '.join(samples)}")
    reference = samples[baseline].seconds
    found = {}
    for name, sample in samples.items():
        if len(sample.seconds) != len(reference):
            raise ValueError(
                f"{name!r} and {baseline!r} were not measured side by side: "
                f"{len(sample.seconds)} and {len(reference)} repetitions"
            )
        pairs = [base / own if own else math.inf for base, own in zip(reference, sample.seconds, strict=True)]
        found[name] = Ratio(statistics.median(pairs), min(pairs), max(pairs))
    return found


def _waiter(device: torch.device | str) -> Callable[[], object]:
    device = torch.device(device)
    if device.type == "cpu":
        return lambda: None
    wait: Callable[..., object] | None = getattr(getattr(torch, device.type, None), "synchronize", None)
    if wait is None:
        raise ValueError(f"torch has no way to wait for device {str(device)!r}: give synchronize= a function that does")
    if device.type == "mps":  # there is only one, and its function takes no argument
        return wait
    return lambda: wait(device)
