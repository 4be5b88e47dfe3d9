"""``holitom ask``: a question about a video file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from holitom.cli.console import err, out
from holitom.cli.loading import load

if TYPE_CHECKING:
    from holitom.long_video import Progress
    from holitom.methods.base import Method
    from holitom.pipeline import Answer


def ask(
    video: Annotated[str, typer.Argument(help="A video file, an animated GIF, or a folder of images.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[str, typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")] = "tiny",
    method: Annotated[
        str, typer.Option(help="A method of `holitom methods`, with settings as name:key=value,..., or `none`.")
    ] = "holitom",
    retention: Annotated[
        float | None, typer.Option(help="Share of the visual tokens that may enter the LLM, in (0, 1].  [default: 0.1]")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to sample.  [default: what the model was made for, else 32]")
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Read a long video in windows of so many seconds.  [default: 60 with --tokens]")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Visual tokens that a video read in windows may have in the LLM.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of a video read in windows.  [default: 1]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    compare: Annotated[bool, typer.Option("--compare", help="Also run uncompressed, and print ratios.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.  [default: a GPU if any]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = None,
) -> None:
    """Ask a question about a video, and see what compression saved."""
    chosen = choose(method, retention)
    windows = {"window": window, "tokens": tokens, "fps": fps}
    if any(value is not None for value in windows.values()):
        check_windows(windows, frames, retention, compare)
    pipeline = load(model, device, dtype, attention, quiet=as_json)
    settings: dict[str, Any] = {"frames": frames, "max_new_tokens": max_new_tokens, **windows}
    if compare:
        pipeline.warm_up(video, chosen, frames=frames)
    with reading_bar(hidden=as_json) as progress:
        answer = pipeline.ask(video, question, chosen, **settings, progress=progress)
    full = pipeline.ask(video, question, None, **settings) if compare else None
    if answer.warning and not as_json:
        err.print(f"[yellow]warning:[/] {answer.warning}", soft_wrap=True)
    if as_json:
        report = answer.as_dict()
        if full is not None:
            report = {"compressed": report, "uncompressed": full.as_dict()}
        typer.echo(json.dumps(report, indent=1))
        return
    out.print(answer.text, markup=False)
    if full is not None:
        out.print(f"[dim]uncompressed:[/] {full.text}")
    out.print(table(answer, full))


def choose(method: str, retention: float | None) -> Method | None:
    """The method that the options name.

    Raises:
        typer.BadParameter: when there is no such method or setting.
    """
    from holitom.methods.registry import parse

    if method == "none":
        if retention is not None:
            raise typer.BadParameter("without a method there is nothing to retain: leave --retention out")
        return None
    try:
        if retention is not None:
            outer, bar, inner = method.partition("|")
            outer += ("," if ":" in outer else ":") + f"retention={retention}"
            method = outer + bar + inner
        return parse(method)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def check_windows(
    windows: Mapping[str, float | int | None], frames: int | None, retention: float | None, compare: bool
) -> None:
    """Refuses options that do not go with reading in windows.

    Raises:
        typer.BadParameter: naming the options.
    """
    for name in ("window", "fps"):
        value = windows[name]
        if value is not None and not (math.isfinite(value) and value > 0):
            raise typer.BadParameter(f"--{name} must be above 0, got {value}")
    if windows["fps"] is not None and frames is not None:
        raise typer.BadParameter("--fps and --frames both say how many frames to sample: give one of them")
    if windows["tokens"] is not None and retention is not None:
        raise typer.BadParameter("--tokens and --retention both say how much stays: give one of them")
    if compare:
        raise typer.BadParameter(
            "--compare runs the whole video uncompressed, which one read in windows is too long for: leave it out (the "
            "table counts what it would have cost)"
        )


@contextmanager
def reading_bar(hidden: bool) -> Iterator[Progress]:
    """A bar of the frames read, which appears with the first of them and goes when the reading is done."""
    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), "{task.fields[kept]:,} tokens")
    with RichProgress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=hidden or not err.is_terminal
    ) as bar:
        task = bar.add_task("reading", total=None, visible=False, kept=0)

        def tell(done: int, total: int, kept: int) -> None:
            bar.update(task, completed=done, total=total, kept=kept, visible=done < total)

        yield tell


def choose_all(names: list[str], retentions: list[float]) -> list[Method]:
    """The methods that repeated options name: each at each retention, those without a retention of their own once.

    ``all`` stands for every known method.

    Raises:
        typer.BadParameter: when there is no such method or setting.
    """
    from holitom.methods.registry import method_class
    from holitom.methods.registry import names as known

    found: list[Method] = []
    for name in [each for given in names for each in (known() if given == "all" else [given])]:
        bare, _, settings = name.partition("|")[0].partition(":")
        fixed = "retention=" in settings
        if not fixed and bare in known():
            fixed = "retention" not in {field.name for field in dataclasses.fields(method_class(bare))}
        for share in [None] if fixed else retentions:
            chosen = choose(name, share)
            if chosen is not None and chosen not in found:
                found.append(chosen)
    return found


def table(answer: Answer, full: Answer | None) -> Table:
    """The proof beside an answer: tokens, FLOPs, memory and time, and the same uncompressed where it was run.

    FLOPs and bytes of the full prompt are counted, not run, so they stand beside every answer.
    """
    summary, cost = answer.summary, answer.summary.cost
    grid = Table(box=None, pad_edge=False)
    grid.add_column("")
    for column in (summary.name, "uncompressed", "ratio"):
        grid.add_column(str(column), justify="right")
    whole, entering, leaving = summary.visual_tokens

    def row(name: str, part: float | None, base: float | None, write: Any) -> None:
        ratio = f"{part / base:.3f}" if part is not None and base else ""
        grid.add_row(name, *("" if value is None else write(value) for value in (part, base)), ratio)

    row("visual tokens into the LLM", entering, whole, "{:,}".format)
    if leaving != entering:
        row("visual tokens after the inner stage", leaving, whole, "{:,}".format)
    if summary.segments is not None:
        grid.add_row("segments found", str(summary.segments))
    row("prefill FLOPs (paper's formula)", cost.compressed.paper_flops, cost.full.paper_flops, _si)
    row("prefill FLOPs (causal)", cost.compressed.prefill_flops, cost.full.prefill_flops, _si)
    row("KV cache, bytes", cost.compressed.kv_cache_bytes, cost.full.kv_cache_bytes, _si)
    for name, seconds in answer.seconds.items():
        row(f"  {name}, ms", seconds * 1e3, full.seconds[name] * 1e3 if full else None, "{:,.1f}".format)
    first = full.time_to_first_token * 1e3 if full else None
    row("time to first token, ms", answer.time_to_first_token * 1e3, first, "{:,.1f}".format)
    row("decode, tokens/s", answer.tokens_per_second, full.tokens_per_second if full else None, "{:,.1f}".format)
    return grid


def _si(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} "
