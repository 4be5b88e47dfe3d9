"""``holitom ask``: a question about a video file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from holitom.cli import options
from holitom.cli.checks import check_question, check_video
from holitom.cli.choices import check_windows, choose, in_tower
from holitom.cli.console import err, say, say_json, show, warn
from holitom.cli.loading import chosen_model, load

ROUNDS = 3
"""How often ``--compare`` asks each way, after a first time that does not count."""

OVERHEAD = "compression"
"""The stage that is the method's own: without one there is nothing to compare it with."""

if TYPE_CHECKING:
    from holitom.long_video import Progress
    from holitom.methods.base import Method
    from holitom.pipeline import Answer, Pipeline


def ask(
    video: options.Video,
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: options.Model = None,
    method: options.Method = None,
    retention: options.Retention = None,
    positions: options.Positions = None,
    tower: options.Tower = None,
    frames: options.Frames = None,
    window: options.Window = None,
    tokens: options.Tokens = None,
    fps: options.Fps = None,
    max_new_tokens: options.MaxNewTokens = 128,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run uncompressed, in turns after a warm-up, and print ratios.")
    ] = False,
    as_json: options.AsJson = False,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    attention: options.Attention = None,
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
        say_json(report)
        return
    if answer.warning:
        warn(answer.warning)
    say(answer.text)
    if full is not None:
        say(f"uncompressed: {full.text}")
    if answer.summary.name != "uncompressed":
        say(headline(answer, full))
    show(table(answer, full))


def compared(
    pipeline: Pipeline, video: str, question: str, method: Method | None, settings: dict[str, Any]
) -> tuple[Answer, Answer]:
    """The answers with a method and without it, after a call of each that does not count.

    They are asked in turns, the one that came first in a round coming last in the next, and their times are medians of
    all rounds: neither is slower for being first.

    Args:
        pipeline: model and preprocessor.
        video: as in :meth:`Pipeline.ask`.
        question: as in :meth:`Pipeline.ask`.
        method: the method; None: uncompressed as well.
        settings: further arguments of :meth:`Pipeline.ask`.
    """
    ours: list[Answer] = []
    full: list[Answer] = []
    for number in range(1 + ROUNDS):
        turns = ((method, ours), (None, full))
        for each, answers in turns if number % 2 else turns[::-1]:
            answers.append(pipeline.ask(video, question, each, **settings))
    return median_times(ours[1:]), median_times(full[1:])


def median_times(answers: list[Answer]) -> Answer:
    """The first of several answers, with the median of each of their times."""
    rates = [each.tokens_per_second for each in answers if each.tokens_per_second is not None]
    return dataclasses.replace(
        answers[0],
        seconds={name: median(each.seconds[name] for each in answers) for name in answers[0].seconds},
        tokens_per_second=median(rates) if rates else None,
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


def headline(answer: Answer, full: Answer | None) -> str:
    """What compression did, in one sentence."""
    summary, cost = answer.summary, answer.summary.cost
    whole, entering, _ = summary.visual_tokens
    found = [f"{entering:,} of {whole:,} visual tokens enter the LLM"]
    if full is not None:
        found.append("the answer is the same" if answer.text == full.text else "the answer is another one")
        prefill = full.seconds["LLM prefill"], answer.seconds["LLM prefill"]
        if all(prefill):
            found.append(f"LLM prefill {prefill[0] / prefill[1]:.1f} times as fast")
    if cost is not None:
        share = cost.compressed.kv_cache_bytes / cost.full.kv_cache_bytes
        found.append(f"{100 * share:.0f} % of the KV cache")
    return ", ".join(found)


def table(answer: Answer, full: Answer | None) -> Table:
    """The proof beside an answer: tokens, FLOPs, memory and time, and the same uncompressed where it was run.

    The LLM's rows come first, then the time to the first token, then the parts of it that no method changes (with a
    method inside the vision tower, all but the tower). FLOPs and bytes of the full prompt are counted, not run, so they
    stand beside every answer.
    """
    from holitom.methods.registry import parse, spell

    summary, cost = answer.summary, answer.summary.cost
    method = parse(summary.method)
    grid = Table(box=None, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for column in (summary.name, "uncompressed", "ratio"):
        grid.add_column(str(column), justify="right", no_wrap=True)
    whole, entering, leaving = summary.visual_tokens

    def row(name: str, part: float | None, base: float | None, write: Any) -> None:
        ratio = f"{part / base:.3f}" if part is not None and base else ""
        grid.add_row(name, *("" if value is None else write(value) for value in (part, base)), ratio)

    def stage(name: str, indent: str = "") -> None:
        base = full.seconds[name] * 1e3 if full and name != OVERHEAD else None
        row(f"{indent}{name}, ms", answer.seconds[name] * 1e3, base, "{:,.1f}".format)

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
    changed = ["LLM prefill", OVERHEAD] + ["vision tower"] * (method.stage("tower") is not None)
    for name in changed:
        stage(name)
    row("decode, tokens/s", answer.tokens_per_second, full.tokens_per_second if full else None, "{:,.1f}".format)
    first = full.time_to_first_token * 1e3 if full else None
    row("time to first token, ms", answer.time_to_first_token * 1e3, first, "{:,.1f}".format)
    grid.add_row(f"of it, what {summary.name} does not change:")
    for name in answer.seconds:
        if name not in changed:
            stage(name, "  ")
    if summary.name != "uncompressed":
        grid.caption = f"{spell(method)}, positions {summary.method.get('positions', 'as in its parts')}"
        if full is not None:
            grid.caption += f"\nmedians of {ROUNDS} rounds after a warm-up"
    return grid


def _si(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} "
