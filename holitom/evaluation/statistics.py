"""Accuracies with honest intervals: methods are compared on the same clips, and clips are what is resampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holitom.evaluation.results import Row

# Tasks of the clip suite whose answers leak through which tokens are kept, whatever they show: counting suffers when
# the tokens that change most are kept (training/results/leaks.json), and counting scenes when those of objects are.
# They are asked and shown, but do not enter the mean.
LEAKING = ("count", "scenes")
DRAWS = 2000  # resamplings of the clips
KINDS = {
    "content": ("colour", "shape"),
    "place": ("end_place", "start_place"),
    "motion": ("direction", "side", "mover"),
    "time": ("order", "flash_shape", "flash_place"),
}
"""The other tasks by what a question asks for. The mean over tasks weighs them unevenly, so each kind has its own."""


class Interval(NamedTuple):
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def counts(rows: Sequence[Row], clips: Sequence[str], tasks: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Right answers and questions by clip and task: two arrays (clips, tasks)."""
    place = {clip: number for number, clip in enumerate(clips)}
    column = {task: number for number, task in enumerate(tasks)}
    right, asked = np.zeros((len(clips), len(tasks))), np.zeros((len(clips), len(tasks)))
    for row in rows:
        for task, good in zip(row.tasks, row.right, strict=True):
            if task in column and row.clip in place:
                asked[place[row.clip], column[task]] += 1
                right[place[row.clip], column[task]] += good
    return right, asked


def mean_accuracy(right: NDArray[Any], asked: NDArray[Any]) -> NDArray[Any]:
    """The mean over tasks of each task's accuracy, (..., clips, tasks) -> (...), of tasks with questions."""
    known = asked.sum(-2)
    share = right.sum(-2) / np.maximum(known, 1)
    mean: NDArray[Any] = share.sum(-1) / np.maximum((known > 0).sum(-1), 1)
    return mean


def paired_bootstrap(
    rows: Sequence[Row], baseline: Sequence[Row], tasks: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> tuple[Interval, Interval]:
    """Mean accuracy over tasks, and its difference to the baseline on the same clips, with 95 % bootstrap intervals.

    Args:
        rows: of one method.
        baseline: rows of another one; only clips that both have count.
        tasks: those that enter the mean.
        draws: resamplings of the clips, the same for both.
        seed: of the resamplings.

    Raises:
        ValueError: when the two have no clip in common.
    """
    shared = sorted({row.clip for row in rows} & {row.clip for row in baseline})
    if not shared:
        raise ValueError("the two methods have no clip in common: run them on the same clips")
    ours, theirs = counts(rows, shared, tasks), counts(baseline, shared, tasks)
    picks = np.random.default_rng(seed).integers(0, len(shared), (draws, len(shared)))
    values = mean_accuracy(ours[0][picks], ours[1][picks])
    others = mean_accuracy(theirs[0][picks], theirs[1][picks])
    value, other = float(mean_accuracy(*ours)), float(mean_accuracy(*theirs))
    return interval_of(value, values), interval_of(value - other, values - others)


def interval_of(value: float, draws: NDArray[Any]) -> Interval:
    """A value and what 95 % of its resampled ones lie between."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _share(rows: Sequence[Row]) -> float | None:
    """Prefill FLOPs over those uncompressed; None where the family's cost is not known."""
    counts = [(row.prefill_flops, row.full_flops) for row in rows if row.prefill_flops and row.full_flops]
    return sum(part for part, _ in counts) / sum(full for _, full in counts) if len(counts) == len(rows) else None


def _mean(shares: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if len(known) == len(shares) else None


def accuracy_table(rows: Sequence[Row], baseline: str, averaged: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything the table and the plot show, by method.

    Args:
        rows: of all methods.
        baseline: the method that the others are compared with.
        averaged: the tasks that enter the mean; None: all but those of :data:`LEAKING`.

    Returns:
        For each method: accuracy by task and by kind of task, mean with interval, difference to the baseline with
        interval, share of visual tokens entering and on average, share of prefill FLOPs (causal, and by the paper's
        formula) and of the vision tower's, clips and questions.
    """
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    averaged = [task for task in tasks if (task not in LEAKING if averaged is None else task in averaged)] or tasks
    table: dict[str, Any] = {}
    for method, mine in by_method.items():
        right, asked = counts(mine, sorted({row.clip for row in mine}), tasks)
        mean, difference = paired_bootstrap(mine, by_method[baseline], averaged)
        tokens = np.array([row.visual_tokens for row in mine]).sum(0)
        table[method] = {
            "tasks": {
                task: float(right[:, number].sum() / asked[:, number].sum())
                for number, task in enumerate(tasks)
                if asked[:, number].sum()
            },
            "kinds": {
                kind: float(mean_accuracy(right[:, chosen], asked[:, chosen]))
                for kind, members in KINDS.items()
                if asked[:, chosen := [number for number, task in enumerate(tasks) if task in members]].sum()
            },
            "mean": list(mean),
            "difference": list(difference),
            "tokens_entering": float(tokens[1] / tokens[0]),
            "tokens_mean": float(tokens[2] / tokens[0]),
            "prefill_flops": _share(mine),
            "paper_flops": _mean([row.paper_share for row in mine]),
            "tower_flops": _mean([row.tower_share for row in mine]),
            "clips": len({row.clip for row in mine}),
            "questions": int(asked.sum()),
        }
    return table
