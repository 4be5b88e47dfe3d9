"""The timers see work that sleeps, work that a device does later, nesting, order and failure."""

from __future__ import annotations

import queue
import threading
import time

import pytest
import torch

from holitom.cost import Ratio, Sample, StageTimer, interleave, ratios, synchronize

NAP = 0.02


class AsynchronousDevice:
    """Takes work at once and does it later, in order, as an accelerator does."""

    def __init__(self) -> None:
        self.work: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def launch(self, seconds: float) -> None:
        self.work.put(seconds)

    def synchronize(self) -> None:
        self.work.join()

    def _run(self) -> None:
        while True:
            time.sleep(self.work.get())
            self.work.task_done()


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_takes_the_time_of_its_work():
    timer = StageTimer()
    with timer.stage("model"):
        for _ in range(2):
            for name, naps in (("first", 1), ("second", 3)):
                with timer.stage(name):
                    time.sleep(naps * NAP)
    totals = timer.totals()
    assert list(totals) == ["model/first", "model/second", "model"]
    assert 2 * NAP <= totals["model/first"] < totals["model/second"]
    assert totals["model/second"] >= 6 * NAP
    assert totals["model/first"] + totals["model/second"] <= totals["model"]


def test_stages_wait_for_an_asynchronous_device():
    device = AsynchronousDevice()
    blind, timer = StageTimer(), StageTimer(synchronize=device.synchronize)
    with blind.stage("launch"):
        device.launch(20 * NAP)
    assert blind.totals()["launch"] < 10 * NAP  # what a clock without waiting reports
    with timer.stage("work"):  # the launch before it is not its work
        device.launch(2 * NAP)
    assert 2 * NAP <= timer.totals()["work"] < 15 * NAP


def test_interleave_waits_for_an_asynchronous_device():
    device = AsynchronousDevice()
    runs = {"slow": lambda: device.launch(8 * NAP), "fast": lambda: device.launch(NAP)}
    samples = interleave(runs, repeats=3, synchronize=device.synchronize)
    assert samples["fast"].minimum >= NAP
    assert samples["slow"].minimum >= 8 * NAP
    assert ratios(samples, "slow")["fast"].median > 2


def test_interleave_takes_turns_and_drops_the_warm_up():
    clock, calls = Clock(), []

    def run(name: str, seconds: float):
        def call() -> None:
            calls.append(name)
            clock.now += seconds * (10 if len(calls) <= 3 else 1)  # the first round is slow

        return call

    samples = interleave({name: run(name, s) for name, s in (("A", 4), ("B", 2), ("C", 1))}, 2, 1, clock=clock)
    assert "".join(calls) == "ABC" * 3
    assert {name: sample.seconds for name, sample in samples.items()} == {"A": (4, 4), "B": (2, 2), "C": (1, 1)}
    assert ratios(samples, "A") == {"A": Ratio(1, 1, 1), "B": Ratio(2, 2, 2), "C": Ratio(4, 4, 4)}


def test_ratios_pair_the_rounds():
    # The machine slows down tenfold after the first round: the ratio of each round is untouched.
    samples = {"full": Sample((2.0, 20.0, 20.0)), "short": Sample((1.0, 10.0, 5.0))}
    assert ratios(samples, "full")["short"] == Ratio(median=2.0, minimum=2.0, maximum=4.0)


def test_stages_within_stages_are_named_by_their_way():
    clock = Clock()
    timer = StageTimer(clock=clock)
    with timer.stage("outer"):
        clock.now += 1
        with timer.stage("inner"):
            clock.now += 2
            with timer.stage("core"):
                clock.now += 4
    assert timer.totals() == {"outer/inner/core": 4, "outer/inner": 6, "outer": 7}


def test_a_failing_stage_is_not_recorded_and_leaves_the_timer_usable():
    timer = StageTimer()
    with pytest.raises(RuntimeError), timer.stage("broken"), timer.stage("inner"):
        raise RuntimeError
    with timer.stage("next"):
        pass
    assert list(timer.totals()) == ["next"]


def test_sample_statistics():
    sample = Sample((3.0, 1.0, 2.0, 4.0, 5.0))
    assert (sample.median, sample.minimum, sample.maximum) == (3.0, 1.0, 5.0)
    assert sample.spread == pytest.approx((4 - 2) / 3)
    assert Sample((2.0,)).spread == 0
    assert sample.as_dict()["seconds"] == [3.0, 1.0, 2.0, 4.0, 5.0]
    assert sample.as_dict()["repeats"] == 5


def test_synchronize_knows_the_cpu_and_refuses_what_cannot_be_waited_for():
    synchronize("cpu")
    synchronize(torch.device("cpu", 0))
    for refused in (synchronize, StageTimer):
        with pytest.raises(ValueError, match="no way to wait for device 'meta'"):
            refused("meta")


def test_synchronize_finds_the_accelerator_of_its_name(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    synchronize("cuda:1")
    synchronize("mps")
    assert waited == ["cuda:1", "mps"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interleave({}), "runs is empty"),
        (lambda: interleave({"A": int}, repeats=0), "repeats must be at least 1 and warmup at least 0, got 0 and 1"),
        (lambda: ratios({"A": Sample((1.0,))}, "B"), "baseline 'B' was not measured; measured: A"),
        (
            lambda: ratios({"A": Sample((1.0,)), "B": Sample((1.0, 2.0))}, "A"),
            "'B' and 'A' were not measured side by side: 2 and 1 repetitions",
        ),
        (lambda: Sample(()), "at least one measurement"),
        (lambda: StageTimer().stage("a/b").__enter__(), "must not be empty nor hold '/', got 'a/b'"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
