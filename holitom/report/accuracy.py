"""The table and the plot of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from holitom.evaluation import KINDS, LEAKING
from holitom.report.plots import finish, new_figure


def accuracy_rich(table: dict[str, Any]) -> Group:
    """The accuracy of each method, and by task, from what :func:`holitom.evaluation.accuracy_table` gives."""
    shown = Table(box=None, pad_edge=False)
    note = f"accuracy in %, 95 % intervals by bootstrap over the same clips; {' and '.join(LEAKING)} not in the mean"
    inside = any(entry.get("tower_flops") not in (None, 1) for entry in table.values())
    note += "; FLOPs of prefill, causal; beside them by the paper's formula" + (
        "; tower: FLOPs of the vision tower" if inside else ""
    )
    by_task = Table(box=None, pad_edge=False, caption=note)
    shown.add_column("", justify="right")
    shown.add_column("method", overflow="fold")
    for column in ("accuracy", *KINDS, "difference", "tokens", "FLOPs", "paper's"):
        shown.add_column(column, justify="right", no_wrap=True)
    if inside:
        shown.add_column("tower", justify="right", no_wrap=True)
    by_task.add_column("task")
    for number, (method, entry) in enumerate(table.items(), 1):
        mean, low, high = (100 * value for value in entry["mean"])
        gap = [100 * value for value in entry["difference"]]
        shown.add_row(
            str(number),
            method,
            f"{mean:.1f} [{low:.1f}, {high:.1f}]",
            *(f"{100 * entry['kinds'][kind]:.0f}" if kind in entry["kinds"] else "" for kind in KINDS),
            f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]" if any(gap) else "",
            f"{100 * entry['tokens_entering']:.1f}",
            *(
                "" if (share := entry.get(key)) is None else f"{100 * share:.1f}"
                for key in ("prefill_flops", "paper_flops")
            ),
            *([f"{100 * entry['tower_flops']:.1f}" if entry["tower_flops"] is not None else ""] if inside else []),
        )
        by_task.add_column(str(number), justify="right")
    for task in dict.fromkeys(task for entry in table.values() for task in entry["tasks"]):
        shares = [entry["tasks"].get(task) for entry in table.values()]
        by_task.add_row(task.replace("_", " "), *("" if share is None else f"{100 * share:.0f}" for share in shares))
    return Group(shown, "", by_task)


def accuracy_plot(table: dict[str, Any], path: Path, title: str) -> None:
    """Mean accuracy over the share of prefill FLOPs, one point with its interval for each method.

    Raises:
        ImportError: without matplotlib, which the extra ``holitom[plot]`` installs.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    names = list(dict.fromkeys(method.partition(":")[0] for method in table))
    markers = "osD^vP*X<>hp"
    for method, entry in table.items():
        if entry["prefill_flops"] is None:
            raise ValueError("the FLOPs of this family are not known, so accuracy cannot be drawn over them")
        name = method.partition(":")[0]
        mean, low, high = (100 * value for value in entry["mean"])
        number = names.index(name)
        axes.errorbar(
            100 * entry["prefill_flops"],
            mean,
            yerr=[[mean - low], [high - mean]],
            fmt=markers[number % len(markers)],
            color=f"C{number % 10}",
            capsize=2,
            label=name if method == next(m for m in table if m.partition(":")[0] == name) else None,
        )
    axes.set_xscale("log")
    axes.set_title(title)
    finish(figure, axes, path, "prefill FLOPs (causal), % of uncompressed", "mean accuracy over tasks, %")


def risk_plot(report: dict[str, Any], path: Path) -> None:
    """The share of answers that differ over the share of visual tokens, from what ``holitom calibrate`` reports.

    Raises:
        ImportError: without matplotlib, which the extra ``holitom[plot]`` installs.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    names = list(dict.fromkeys(method.partition(":")[0] for method in report["methods"]))
    for number, name in enumerate(names):
        mine = [entry for method, entry in report["methods"].items() if method.partition(":")[0] == name]
        mine.sort(key=lambda entry: entry["tokens_entering"])
        values = [[100 * part for part in entry["disagreement"]] for entry in mine]
        axes.errorbar(
            [100 * entry["tokens_entering"] for entry in mine],
            [value for value, _, _ in values],
            yerr=[[value - low for value, low, _ in values], [high - value for value, _, high in values]],
            fmt="o-",
            color=f"C{number % 10}",
            capsize=2,
            label=name,
        )
    axes.axhline(100 * report["bound"], color="grey", linestyle=":", label="bound")
    finish(figure, axes, path, "visual tokens that enter the LLM, %", "answers that differ from the full prompt's, %")
