"""The table and the plots of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from holitom.bench.measure import COMPRESSION, FIRST, NEXT, PREFILL, STAGES, TOWER
from holitom.bench.results import BASELINE, Report
from holitom.cost import ratios
from holitom.report.plots import finish, new_figure

STOCK = "uncompressed:stock=true"
COLOURS = {TOWER: "#adb5bd", COMPRESSION: "#e8590c", PREFILL: "#1971c2"}


def rows(report: Report) -> list[dict[str, Any]]:
    """One entry for each measured method: what the table, the docs and the plots show.

    Milliseconds are medians; ``*_speedup`` are medians of the ratios to the uncompressed model, round by round;
    ``stock_speedup`` to transformers without what a session computes sooner. ``tower_flops`` is the share of the vision
    tower's FLOPs that ran.
    """
    found, first = [], report.samples(FIRST)
    stock = ratios(first, STOCK) if STOCK in first and len({len(each.seconds) for each in first.values()}) == 1 else {}
    for label, entry in report.results().items():
        facts, seconds = report.methods[label], entry["seconds"]
        if FIRST not in seconds:
            continue
        tokens = facts["visual_tokens"]
        found.append(
            {
                "method": label,
                "tokens": tokens["entering"] / tokens["full"],
                "tokens_mean": tokens["mean"] / tokens["full"],
                "flops": facts.get("cost_ratios", {}).get("prefill_flops"),
                "paper_flops": facts.get("cost_ratios", {}).get("paper_flops"),
                **{stage: 1e3 * seconds[stage]["median"] for stage in STAGES if stage in seconds},
                "tower_flops": facts.get("cost_ratios", {}).get("vision_flops"),
                "stock_speedup": stock[label].median if label in stock else None,
                "first_spread": seconds[FIRST]["spread"],
                "first_speedup": _speedup(entry, FIRST),
                "prefill_speedup": _speedup(entry, PREFILL),
                "decode_speedup": _speedup(entry, NEXT),
                "tokens_per_second": entry.get("tokens_per_second"),
                "compiled": entry.get("compiled"),
                "kv_cache_bytes": entry["kv_cache_bytes"],
                "peak_bytes": entry["peak_bytes"],
                "peak_above": entry["peak_above"],
            }
        )
    return found


def inside_tower(measured: list[dict[str, Any]]) -> list[str]:
    """What rows say of the vision tower, where that differs between methods: ``tower_flops``, ``stock_speedup``."""
    shares = any(row["tower_flops"] not in (None, 1) for row in measured)
    stock = any(row["stock_speedup"] is not None for row in measured)
    return ["tower_flops"] * shares + ["stock_speedup"] * stock


def _speedup(entry: Mapping[str, Any], stage: str) -> float | None:
    found = entry["speedup"].get(stage)
    return None if found is None else float(found["median"])


def bench_rich(report: Report) -> Group:
    """The report as a table, with what failed and where it was measured below it."""
    shown, by_stage = Table(box=None, pad_edge=False), Table(box=None, pad_edge=False)
    for table in (shown, by_stage):
        table.add_column("", justify="right")
    shown.add_column("method", overflow="fold")
    for title in ("tokens\n%", "FLOPs\n%", "paper's\n%", "TTFT\nms", "\n×", "\n±%", "decode\ntok/s", "\n×"):
        shown.add_column(title, justify="right", no_wrap=True)
    for title in (
        "tower\nms",
        "compression\nms",
        "LLM prefill\nms",
        "\n×",
        "KV cache\nMB",
        "peak\nMB",
        "of these\nin the run",
    ):
        by_stage.add_column(title, justify="right", no_wrap=True)
    measured = rows(report)
    extra = inside_tower(measured)
    for name in extra:
        by_stage.add_column(
            {"tower_flops": "tower\nFLOPs %"}.get(name, "TTFT ×\nof stock"), justify="right", no_wrap=True
        )
    if report.compiled:
        for title in ("compiled\ntok/s", "\n×"):
            shown.add_column(title, justify="right", no_wrap=True)
    for number, row in enumerate(measured, 1):
        base = row["method"] == BASELINE
        shown.add_row(
            str(number),
            row["method"],
            f"{100 * row['tokens']:.1f}",
            _percent(row["flops"]),
            _percent(row["paper_flops"]),
            f"{row[FIRST]:,.1f}",
            "" if base else _times(row["first_speedup"]),
            f"{100 * row['first_spread']:.0f}",
            "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:,.1f}",
            "" if base else _times(row["decode_speedup"]),
            *compiled_cells(report, row),
        )
        sizes = (row[name] for name in ("kv_cache_bytes", "peak_bytes", "peak_above"))
        by_stage.add_row(
            str(number),
            *(f"{row[stage]:,.1f}" for stage in (TOWER, COMPRESSION, PREFILL)),
            "" if base else _times(row["prefill_speedup"]),
            *("" if size is None else f"{size / 1e6:,.1f}" for size in sizes),
            *(_percent(row[name]) if name == "tower_flops" else _times(row[name]) for name in extra),
        )
    machine, settings = report.machine, report.settings
    lines = [f"[failed] {label}: {reason}" for label, reason in report.failures.items()]
    lines.append(
        f"{settings.get('model')}, {settings['frames']} frames, batch {settings['batch']}, "
        f"{settings['dtype']}, {settings['attention']}; {machine['device_name']}, {machine['threads']} threads, "
        f"torch {machine['torch']}; medians of {len(report.rounds)} interleaved rounds; × is the median of the ratios "
        "to uncompressed, round by round; ± the distance of the quartiles"
    )
    lines.append("FLOPs are those of prefill, causal; beside them by the paper's formula")
    if report.compiled:
        lines.append(
            f"compiled: decoding with a static cache under torch.compile ({settings['compile']}), median of the steps, "
            "method after method; × is to the uncompressed model compiled"
        )
    if settings.get("clock") == "process":
        lines.append("times are processor time of the process, not time on the wall")
    return Group(shown, "", by_stage, "", *(Text(line) for line in [*lines, *report.notes]))


def compiled_cells(report: Report, row: Mapping[str, Any]) -> list[str]:
    """Tokens per second of compiled decoding, and how many times as many that is; nothing where none was measured."""
    if not report.compiled:
        return []
    found = row["compiled"]
    if found is None:
        return ["", ""]
    return [f"{found['tokens_per_second']:,.1f}", "" if row["method"] == BASELINE else _times(found.get("speedup"))]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def bench_plots(report: Report, folder: Path) -> list[Path]:
    """The two bar charts of the paper's efficiency figure, measured: time to first token by stage, decode throughput.

    Beside the first stands the same without the vision tower, which is nearly all of it on some machines.

    Raises:
        ImportError: without matplotlib, which the extra ``holitom[plot]`` installs.
    """
    measured = rows(report)
    clock = "processor time" if report.settings.get("clock") == "process" else "time"
    figure = _figure(measured, width=12)
    whole, language = figure.subplots(1, 2, sharey=True)
    for axes, stages, name in (
        (whole, (TOWER, COMPRESSION, PREFILL), "first"),
        (language, (COMPRESSION, PREFILL), "prefill"),
    ):
        start = [0.0] * len(measured)
        for stage in stages:
            widths = [row[stage] for row in measured]
            axes.barh([row["method"] for row in measured], widths, left=start, color=COLOURS[stage], label=stage)
            start = [a + b for a, b in zip(start, widths, strict=True)]
        _notes(axes, start, measured, f"{name}_speedup")
    whole.set_xlabel(f"{clock} to first token, ms")
    language.set_xlabel(f"{clock} of compression and LLM prefill, ms; × of the prefill")
    _finish(figure, (whole, language), report)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncol=3, fontsize=8)
    paths = [folder / "time_to_first_token.png"]
    figure.savefig(paths[0], dpi=110)
    timed = [row for row in measured if row["tokens_per_second"] is not None]
    if timed:
        figure = _figure(timed)
        axes = figure.subplots()
        speeds = [row["tokens_per_second"] for row in timed]
        axes.barh([row["method"] for row in timed], speeds, color="#2f9e44")
        _notes(axes, speeds, timed, "decode_speedup")
        axes.set_xlabel(f"decode throughput, tokens per second{' of ' + clock if clock != 'time' else ''}")
        _finish(figure, (axes,), report)
        paths.append(folder / "decode_throughput.png")
        figure.savefig(paths[1], dpi=110)
    return paths


def _notes(axes: Any, ends: list[float], measured: list[dict[str, Any]], name: str) -> None:
    """The speed-up at the end of each bar."""
    for number, (end, row) in enumerate(zip(ends, measured, strict=True)):
        if row[name] and row["method"] != BASELINE:
            axes.text(end, number, f" {row[name]:.2f}×", va="center", fontsize=8)


def sweep_plot(found: Mapping[str, Any], path: Path) -> None:
    """Time to first token over frames, both logarithmic, one line for each method.

    Raises:
        ImportError: without matplotlib.
    """
    figure = _figure([{}] * 20)
    axes = figure.subplots()
    for label in dict.fromkeys(point["label"] for point in found["points"]):
        points = sorted((p["frames"], p[FIRST]) for p in found["points"] if p["label"] == label)
        slope = found["exponents"].get(label, {}).get(FIRST)
        legend = label if slope is None else f"{label}: frames^{slope:.2f}"
        axes.plot([frames for frames, _ in points], [seconds for _, seconds in points], marker="o", label=legend)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    finish(figure, axes, path, "frames", "time to first token, s", dpi=110)


def sweep_rich(found: Mapping[str, Any]) -> Group:
    """How far each method got, why it ended, and how its stages grow."""
    table = Table(box=None, pad_edge=False, caption="stages: the time grows as the frames to this power")
    table.add_column("method", overflow="fold")
    for title in ("frames", "failed\nat", "tower", "compr.", "prefill", "TTFT", "decode"):
        table.add_column(title, justify="right", no_wrap=True)
    for label, end in found["ends"].items():
        slopes = found["exponents"].get(label, {})
        table.add_row(
            label,
            str(end["frames"]),
            str(end["failed"] or ""),
            *(f"{slopes[stage]:.2f}" if stage in slopes else "" for stage in STAGES),
        )
    reasons = [Text(f"{label}: {end['why']}") for label, end in found["ends"].items() if end["why"]]
    return Group(table, *reasons)


def _figure(measured: list[Any], width: float = 8) -> Any:
    return new_figure(width, 1.2 + 0.22 * max(len(measured), 6))


def _finish(figure: Any, panels: Iterable[Any], report: Report) -> None:
    settings = report.settings
    figure.suptitle(
        f"{settings.get('model')}, {settings['frames']} frames, batch {settings['batch']}, {settings['dtype']}, "
        f"{report.machine['device_name']}",
        fontsize=9,
    )
    for number, axes in enumerate(panels):
        if number == 0:
            axes.invert_yaxis()  # the panels share it
        axes.margins(x=0.14)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="x", alpha=0.3)
