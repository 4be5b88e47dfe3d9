"""``holitom caption``: questions about thousands of videos, into one table."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from holitom import __version__
from holitom.cli.ask import check_windows, choose
from holitom.cli.console import err
from holitom.cli.loading import load, resolve
from holitom.cli.threads import wait_briefly

if TYPE_CHECKING:
    from holitom.corpus import Engine, Plan, Stop, Store, Totals
    from holitom.corpus.reading import Reader
    from holitom.long_video import Reading
    from holitom.methods.base import Method


def caption(
    source: Annotated[
        str,
        typer.Argument(help="A folder, a pattern in quotes, a table (.csv, .jsonl, .parquet) of paths, or a video."),
    ],
    out_file: Annotated[Path, typer.Option("--out", help="OUT.parquet or OUT.jsonl; a run found there is continued.")],
    question: Annotated[
        list[str] | None, typer.Option(help="What to ask about each video; repeat for several.")
    ] = None,
    questions: Annotated[
        str | None, typer.Option(help="A file with one question a line, or a table with a column `question`.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column of paths in a table.  [default: path, video, file, url or uri]")
    ] = None,
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
        float | None, typer.Option(help="Read long videos in windows of so many seconds.  [default: 60 with --tokens]")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Visual tokens that each video read in windows may have in the LLM.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of videos read in windows.  [default: 1]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on with what OUT holds, or throw it away and start anew.")
    ] = True,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try videos again that failed before.")] = False,
    summary: Annotated[
        str | None, typer.Option(help="Write what was done, and would have been uncompressed, as JSON; - prints it.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode ahead; 0: none.")] = 2,
    ahead: Annotated[
        int | None, typer.Option(min=1, help="Videos decoded ahead; bounds memory.  [default: 2 for each worker]")
    ] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds that decoding one video may take.")] = 600.0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens answered at a time, padding included.")] = 16_384,
    group: Annotated[int, typer.Option(min=1, help="Neighbouring videos among which batches are made.")] = 16,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray, here or at --ray-address ('holitom[ray]').")] = False,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster, as `auto` or ray://HOST:PORT.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="With --ray: copies of the model, each with a GPU if any.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.  [default: a GPU if any]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = None,
) -> None:
    """Ask questions about all videos of a folder, a pattern or a table, into a Parquet or JSON-lines file.

    The file is whole at every moment. A run that was stopped or killed goes on where it was when the same command is
    given again; Ctrl-C lets the batch in flight finish. A video that cannot be read becomes a row with its error.
    """
    if workers:
        wait_briefly()
    from holitom.corpus import Plan, Stop, Store, Totals, list_questions, list_videos

    if engine not in ("transformers", "vllm"):
        raise typer.BadParameter(f"{engine!r} is neither transformers nor vllm", param_hint="--engine")
    reading = _reading(window, tokens, fps, frames, retention, engine)
    chosen = choose(method, retention) if engine == "transformers" else _servable(method, retention)
    plan = Plan(
        list_videos(source, column),
        list_questions(question or [], questions),
        frames=frames,
        workers=0 if reading else workers,  # whoever merges windows decodes them
        ahead=ahead,
        patience=patience,
        batch_tokens=batch_tokens,
        group=group,
    )
    settings = _settings(model, chosen, engine, plan, reading, max_new_tokens, dtype, attention)
    totals = Totals(plan.rows)
    options: dict[str, Any] = {"restart": not resume, "retry_errors": retry_errors, "seen": totals.add}
    with Store(out_file, settings, **options) as store, Stop().on_interrupt() as stop:
        if len(store):
            err.print(f"{out_file} holds {len(store)} rows already", highlight=False, soft_wrap=True)
        totals.begin()
        if plan.left(store.found):
            make = _Maker(engine, model, chosen, plan.questions, reading, max_new_tokens, device, dtype, attention)
            with _progress(totals, summary == "-") as told:
                if ray or ray_address is not None:
                    from holitom.corpus.with_ray import run_on_ray

                    run_on_ray(plan, make, store, stop, told, address=ray_address, actors=actors)
                else:
                    _run_here(plan, make, store, stop, told)
    _tell(out_file, totals, bool(stop), settings, summary)
    if stop and len(store) < plan.rows:
        sys.exit(130)


@dataclass(frozen=True)
class _Maker:
    """The options that decide which engine is made, and how."""

    engine: str
    model: str
    method: Method | None
    questions: tuple[str, ...]
    reading: Reading | None
    max_new_tokens: int
    device: str | None
    dtype: str
    attention: str | None

    def __call__(self) -> Engine:
        """Loads the model."""
        if self.engine == "vllm":
            from holitom.integrations.vllm.corpus import VllmEngine

            assert self.method is not None
            return VllmEngine(resolve(self.model), self.method, self.max_new_tokens, dtype=self.dtype)
        from holitom.corpus import TransformersEngine, WindowsEngine

        pipeline = load(self.model, self.device, self.dtype, self.attention)
        if self.reading is not None:
            return WindowsEngine(pipeline, self.method, self.reading, self.questions, self.max_new_tokens)
        return TransformersEngine(pipeline, self.method, self.max_new_tokens)

    def reader(self, questions: Sequence[str], frames: int | None) -> Reader:
        """What decodes and prepares videos for it."""
        if self.engine == "vllm":
            from holitom.integrations.vllm.corpus import VllmReader

            return VllmReader(resolve(self.model), tuple(questions), frames)
        from holitom.corpus import PathReader, PromptReader

        if self.reading is not None:
            return PathReader()
        return PromptReader(resolve(self.model), tuple(questions), frames)


def _reading(
    window: float | None,
    tokens: int | None,
    fps: float | None,
    frames: int | None,
    retention: float | None,
    engine: str,
) -> Reading | None:
    """How videos are read, where that is in windows.

    Raises:
        typer.BadParameter: for options that do not go together.
    """
    from holitom.long_video import Reading

    given = {"window": window, "tokens": tokens, "fps": fps}
    if all(value is None for value in given.values()):
        return None
    if engine != "transformers":
        raise typer.BadParameter("videos are read in windows by --engine transformers alone")
    check_windows(given, frames, retention, compare=False)
    return Reading.of(window, tokens, fps, frames)


def _run_here(plan: Plan, make: _Maker, store: Store, stop: Stop, told: Any) -> None:
    from holitom.corpus import run

    engine = make()
    try:
        run(plan, engine, make.reader(plan.questions, plan.frames), store, stop, told)
    finally:
        engine.close()


def _servable(method: str, retention: float | None) -> Method:
    """The method with the settings that vLLM needs where none are given: an exact count, no stage inside the LLM."""
    from holitom.integrations.vllm.config import ServingConfig

    try:
        served: Method = ServingConfig.parse(method, **({} if retention is None else {"retention": retention})).method
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint="--method") from error
    return served


def _settings(
    model: str,
    method: Method | None,
    engine: str,
    plan: Plan,
    reading: Reading | None,
    max_new_tokens: int,
    dtype: str,
    attention: str | None,
) -> dict[str, Any]:
    """What decides an answer. Workers, batches and devices do not, but by rounding."""
    return {
        "holitom": __version__,
        "engine": engine,
        "model": model if model == "tiny" else resolve(model),
        "method": "none" if method is None else method.settings(),
        "questions": list(plan.questions),
        "frames": plan.frames,
        **({} if reading is None else {"windows": dataclasses.asdict(reading)}),
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "attention": attention,
    }


@contextmanager
def _progress(totals: Totals, quiet: bool) -> Iterator[Any]:
    """A bar with rows, errors, rate, time left and tokens saved; gives the function that renews it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
    with nullcontext() if quiet else Progress(*columns, console=err) as bar:
        task = bar.add_task("rows", total=totals.expected, more="") if bar is not None else None

        def told() -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=totals.rows, more=_line(totals))

        told()
        yield told


def _line(totals: Totals) -> str:
    left = totals.seconds_left
    parts = [
        f"{totals.errors} errors",
        f"{totals.rate:.2f} rows/s",
        "" if left is None else f"{int(left // 3600)}:{int(left // 60) % 60:02d}:{int(left) % 60:02d} left",
        f"{totals.saved_tokens:,} visual tokens saved",
    ]
    return ", ".join(part for part in parts if part)


def _tell(path: Path, totals: Totals, stopped: bool, settings: dict[str, Any], summary: str | None) -> None:
    report = json.dumps(totals.summary(settings), indent=1)
    if summary == "-":
        typer.echo(report)
    elif summary is not None:
        Path(summary).write_text(report + "\n", encoding="utf-8")
    left = totals.expected - totals.rows
    state = f"stopped; {left} rows are left: the same command goes on" if stopped and left else "done"
    text = f"{path}: {totals.rows} rows, {totals.errors} with errors; {state}"
    err.print(escape(text), highlight=False, soft_wrap=True)
