"""``holitom ask``: a question about a video file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from holitom.cli.checks import check_question, check_video
from holitom.cli.choices import (
    DEVICE,
    FRAMES,
    METHOD,
    MODEL,
    POSITIONS,
    RETENTION,
    TOWER,
    check_windows,
    choose,
    in_tower,
)
from holitom.cli.console import err, say, show, warn
from holitom.cli.loading import chosen_model, load

if TYPE_CHECKING:
    from holitom.long_video import Progress
    from holitom.methods.base import Method
    from holitom.pipeline import Answer, Pipeline


def ask(
    video: Annotated[str, typer.Argument(help="A video file, an animated GIF, or a folder of images.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD)] = None,
    retention: Annotated[float | None, typer.Option(help=RETENTION)] = None,
    positions: Annotated[str | None, typer.Option(help=POSITIONS)] = None,
    tower: Annotated[str | None, typer.Option(help=TOWER)] = None,
    frames: Annotated[int | None, typer.Option(min=1, help=FRAMES)] = None,
    window: Annotated[
        float | None, typer.Option(help="Read a long video in windows of so many seconds.  [default: 60 with --tokens]")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Visual tokens that a video read in windows may have in the LLM.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames to sample per second.  [default in windows: 1]")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run uncompressed, each twice and in turns, and print ratios.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = None,
) -> None:
    """Ask a question about a video, and see what compression saved."""
    windows = {"window": window, "tokens": tokens, "fps": fps}
    if any(value is not None for value in windows.values()):
        check_windows(windows, frames, retention, compare)
    check_question(question)
    check_video(video)
    model = chosen_model(model)
    chosen = in_tower(choose(method, retention, model, positions), tower)
    pipeline = load(model, device, dtype, attention, quiet=as_json)
    settings: dict[str, Any] = {"frames": frames, "max_new_tokens": max_new_tokens, **windows}
    full = None
    if compare:
        with err.status("asking, with and without the method ...") if not as_json else nullcontext():
            answer, full = compared(pipeline, video, question, chosen, settings)
    else:
        with reading_bar(hidden=as_json) as progress:
            answer = pipeline.ask(video, question, chosen, **settings, progress=progress)
    if as_json:
        report = answer.as_dict()
        if full is not None:
            report = {"compressed": report, "uncompressed": full.as_dict()}
        say(json.dumps(report, indent=1))
        return
    if answer.warning:
        warn(answer.warning)
    say(answer.text)
    if full is not None:
        say(f"uncompressed: {full.text}")
    show(table(answer, full))


def compared(
    pipeline: Pipeline, video: str, question: str, method: Method | None, settings: dict[str, Any]
) -> tuple[Answer, Answer]:
    """The answers with a method and without it, after a call of each that does not count.

    They are asked in turns, the one that came first in the first round coming last in the second, and their times are
    means of both: neither is faster for being second.

    Args:
        pipeline: model and preprocessor.
        video: as in :meth:`Pipeline.ask`.
        question: as in :meth:`Pipeline.ask`.
        method: the method; None: uncompressed as well.
        settings: further arguments of :meth:`Pipeline.ask`.
    """
    pipeline.warm_up(video, method, frames=settings.get("frames"), fps=settings.get("fps"))
    order = (method, None, None, method)
    first, second, third, last = (pipeline.ask(video, question, each, **settings) for each in order)
    return mean_times(first, last), mean_times(second, third)


def mean_times(one: Answer, other: Answer) -> Answer:
    """An answer with the means of the times of two runs."""
    rates = one.tokens_per_second, other.tokens_per_second
    return dataclasses.replace(
        one,
        seconds={name: (value + other.seconds[name]) / 2 for name, value in one.seconds.items()},
        tokens_per_second=None if rates[0] is None or rates[1] is None else 2 / (1 / rates[0] + 1 / rates[1]),
    )


@contextmanager
def reading_bar(hidden: bool) -> Iterator[Progress]:
    """A bar of the frames read, which appears with the first of them and goes when the reading is done."""
    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), "{task.fields[kept]:,} tokens")
    with RichProgress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=hidden or not err.is_terminal
    ) as bar:
        task = bar.add_task("reading", total=None, visible=False, kept=0)

        def update(done: int, total: int, kept: int) -> None:
            bar.update(task, completed=done, total=total, kept=kept, visible=done < total)

        yield update


def table(answer: Answer, full: Answer | None) -> Table:
    """The proof beside an answer: tokens, FLOPs, memory and time, and the same uncompressed where it was run.

    FLOPs and bytes of the full prompt are counted, not run, so they stand beside every answer.
    """
    from holitom.methods.registry import parse, spell

    summary, cost = answer.summary, answer.summary.cost
    grid = Table(box=None, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for column in (summary.name, "uncompressed", "ratio"):
        grid.add_column(str(column), justify="right", no_wrap=True)
    whole, entering, leaving = summary.visual_tokens

    def row(name: str, part: float | None, base: float | None, write: Any) -> None:
        ratio = f"{part / base:.3f}" if part is not None and base else ""
        grid.add_row(name, *("" if value is None else write(value) for value in (part, base)), ratio)

    row("visual tokens into the LLM", entering, whole, "{:,}".format)
    if leaving != entering:
        row("visual tokens after the inner stage", leaving, whole, "{:,}".format)
    if summary.segments is not None:
        grid.add_row("segments found", str(summary.segments))
    if cost is not None:
        row("prefill FLOPs (paper's formula)", cost.compressed.paper_flops, cost.full.paper_flops, _si)
        row("prefill FLOPs (causal)", cost.compressed.prefill_flops, cost.full.prefill_flops, _si)
        row("KV cache, bytes", cost.compressed.kv_cache_bytes, cost.full.kv_cache_bytes, _si)
    else:
        grid.add_row("FLOPs and KV cache", "not known for this family")
    for name, seconds in answer.seconds.items():
        row(f"  {name}, ms", seconds * 1e3, full.seconds[name] * 1e3 if full else None, "{:,.1f}".format)
    first = full.time_to_first_token * 1e3 if full else None
    row("time to first token, ms", answer.time_to_first_token * 1e3, first, "{:,.1f}".format)
    row("decode, tokens/s", answer.tokens_per_second, full.tokens_per_second if full else None, "{:,.1f}".format)
    if summary.name != "uncompressed":
        grid.caption = f"{spell(parse(summary.method))}, positions {summary.method.get('positions', 'as in its parts')}"
    return grid


def _si(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} "
