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
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from holitom import __version__
from holitom.cli import options
from holitom.cli.checks import check_device, check_dtype, check_file, check_one_question
from holitom.cli.choices import check_windows, choose, in_tower, renamed, served
from holitom.cli.console import err, note, say
from holitom.cli.loading import check_model, chosen_model, load, resolve
from holitom.cli.threads import wait_briefly
from holitom.extras import require

if TYPE_CHECKING:
    from holitom.corpus import Engine, Plan, Stop, Store, Totals
    from holitom.corpus.reading import Reader
    from holitom.long_video import Reading
    from holitom.methods.base import Method
    from holitom.video.remote import FetchLimits


def caption(
    source: Annotated[
        str,
        typer.Argument(help="A folder, a pattern in quotes, a table (.csv, .jsonl, .parquet) of paths, or a video."),
    ],
    out_file: Annotated[Path, typer.Option("--out", help="OUT.parquet or OUT.jsonl; a run found there is continued.")],
    question: Annotated[list[str] | None, typer.Option(help="What to ask of each video; repeat it.")] = None,
    questions: Annotated[
        str | None, typer.Option(help="A file with one question a line, or a table with a column `question`.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column of paths in a table.  [default: path, video, file, url or uri]")
    ] = None,
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
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on with what OUT holds, or throw it away and start anew.")
    ] = True,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try videos again that failed before.")] = False,
    summary: Annotated[
        str | None, typer.Option(help="Write what was done, and would have been uncompressed, as JSON; - prints it.")
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Exit with 1 where a smaller share of rows has an answer.  [default: none has]"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read videos; 0: none, and no --timeout.")] = 2,
    prefetch: Annotated[
        int | None, typer.Option(min=1, help="Videos read ahead.  [default: 2 for each worker]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that reading one video may take.")] = 600.0,
    download_size: Annotated[float, typer.Option(min=0.001, help="The largest remote video, in MB.")] = 4000.0,
    download_time: Annotated[float, typer.Option(min=1, help="Seconds that fetching one may take.")] = 300.0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens answered at a time, padding included.")] = 16_384,
    group: Annotated[int, typer.Option(min=1, help="Neighbouring videos among which batches are made.")] = 16,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray, here or at --ray-address ('holitom[ray]').")] = False,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster, as `auto` or ray://HOST:PORT.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="With --ray: copies of the model, each with a GPU if any.")] = 1,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    attention: options.Attention = None,
    patience: Annotated[float | None, typer.Option(hidden=True, callback=renamed("--patience", "--timeout"))] = None,
    ahead: Annotated[int | None, typer.Option(hidden=True, callback=renamed("--ahead", "--prefetch"))] = None,
) -> None:
    """Ask questions about all videos of a folder, a pattern or a table, into a Parquet or JSON-lines file.

    The file is whole at every moment. A run that was stopped or killed goes on where it was when the same command is
    given again; Ctrl-C lets the batch in flight finish. A video that cannot be read becomes a row with its error.
    """
    if workers:
        wait_briefly()
    from holitom.corpus import Plan, Scratch, Stop, Store, Totals, list_questions, list_videos
    from holitom.video.remote import FetchLimits

    reading = _reading({"window": window, "tokens": tokens, "fps": fps}, frames, retention, engine)
    _check(engine, ray or ray_address is not None, out_file, summary, device, dtype)
    model = chosen_model(model)
    check_model(model)
    named = (method, retention, model, positions)
    chosen = in_tower(choose(*named), tower) if engine == "transformers" else served(*named, tower).method
    plan = Plan(
        list_videos(source, column),
        list_questions(question or [], questions),
        frames=frames,
        workers=0 if reading else workers,  # whoever merges windows decodes them
        prefetch=prefetch,
        timeout=timeout,
        batch_tokens=batch_tokens,
        group=group,
    )
    check_one_question(chosen, plan.questions, reading is not None)
    totals, limits = Totals(plan.rows), FetchLimits(download_size, download_time)
    make = _Factory(
        engine, model, chosen, plan.questions, reading, max_new_tokens, device, dtype, attention, limits, fps
    )
    settings = make.settings(frames)
    with (
        Scratch(),
        Store(out_file, settings, restart=not resume, retry_errors=retry_errors, seen=totals.add) as store,
        Stop().on_interrupt() as stop,
    ):
        if len(store):
            note(f"{out_file} holds {len(store)} rows already")
        totals.begin()
        if plan.left(store.found):
            with _progress(totals, summary == "-") as renew:
                if ray or ray_address is not None:
                    from holitom.corpus.with_ray import run_on_ray

                    run_on_ray(plan, make, store, stop, renew, address=ray_address, actors=actors)
                else:
                    _run_here(plan, make, store, stop, renew)
    _report(out_file, totals, bool(stop), settings, summary)
    if stop and len(store) < plan.rows:
        sys.exit(130)
    answered = 1 - totals.errors / totals.rows
    if answered == 0 or (fail_under is not None and answered < fail_under):
        wanted = "no row has an answer" if answered == 0 else f"--fail-under {fail_under:g}"
        note(f"{totals.errors} of {totals.rows} rows have an error instead of an answer: {wanted}")
        sys.exit(1)


def _check(engine: str, ray: bool, out_file: Path, summary: str | None, device: str | None, dtype: str) -> None:
    """Refuses what cannot end well, naming the option or the package, before anything is written or loaded."""
    if engine not in ("transformers", "vllm"):
        raise typer.BadParameter(f"{engine!r} is neither transformers nor vllm", param_hint="--engine")
    if engine == "vllm":
        require("vllm", "--engine vllm", "'holitom[vllm]'")
    if ray:
        require("ray", "--ray", "'holitom[ray]'")
    check_file("--out", out_file, (".parquet", ".jsonl"), make=True)
    check_file("--summary", None if summary == "-" else summary)
    check_device(device)
    check_dtype(dtype)


@dataclass(frozen=True)
class _Factory:
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
    limits: FetchLimits
    fps: float | None

    def __call__(self) -> Engine:
        """Loads the model."""
        if self.engine == "vllm":
            from holitom.integrations.vllm.corpus import VllmEngine

            assert self.method is not None
            return VllmEngine(resolve(self.model), self.method, self.max_new_tokens, dtype=self.dtype)
        from holitom.corpus import TransformersEngine, WindowsEngine

        pipeline = load(self.model, self.device, self.dtype, self.attention)
        if self.reading is not None:
            return WindowsEngine(pipeline, self.method, self.reading, self.questions, self.max_new_tokens, self.limits)
        return TransformersEngine(pipeline, self.method, self.max_new_tokens)

    def reader(self, questions: Sequence[str], frames: int | None) -> Reader:
        """What decodes and prepares videos for it."""
        if self.engine == "vllm":
            from holitom.integrations.vllm.corpus import VllmReader

            return VllmReader(resolve(self.model), tuple(questions), frames, self.limits, self.fps)
        from holitom.corpus import PathReader, PromptReader

        if self.reading is not None:
            return PathReader()
        return PromptReader(resolve(self.model), tuple(questions), frames, self.limits, self.fps)

    def settings(self, frames: int | None) -> dict[str, Any]:
        """What decides an answer. Workers, batches and devices do not, but by rounding."""
        windows = {} if self.reading is None else {"windows": dataclasses.asdict(self.reading)}
        return {
            "holitom": __version__,
            "engine": self.engine,
            "model": self.model if self.model == "tiny" else resolve(self.model),
            "method": "none" if self.method is None else self.method.settings(),
            "questions": list(self.questions),
            "frames": frames,
            **windows,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
            "attention": self.attention,
            **({"fps": self.fps} if self.reading is None and self.fps is not None else {}),
        }


def _reading(given: dict[str, Any], frames: int | None, retention: float | None, engine: str) -> Reading | None:
    """How videos are read, where that is in windows, from ``window``, ``tokens`` and ``fps``.

    Raises:
        typer.BadParameter: for options that do not go together.
    """
    from holitom.long_video import Reading

    if any(value is not None for value in given.values()):
        check_windows(given, frames, retention, compare=False)
    reading = Reading.of(**given, frames=frames)
    if reading is not None and engine != "transformers":
        raise typer.BadParameter("videos are read in windows by --engine transformers alone")
    return reading


def _run_here(plan: Plan, make: _Factory, store: Store, stop: Stop, renew: Any) -> None:
    from holitom.corpus import run

    engine = make()
    try:
        run(plan, engine, make.reader(plan.questions, plan.frames), store, stop, renew)
    finally:
        engine.close()


@contextmanager
def _progress(totals: Totals, quiet: bool) -> Iterator[Any]:
    """A bar with rows, errors, rate, time left and tokens saved; gives the function that renews it."""
    counts = Column(no_wrap=True, overflow="ignore")  # never cut, however narrow the terminal
    columns = (
        TextColumn("{task.completed}/{task.total} rows", table_column=counts),
        BarColumn(None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[more]}", table_column=Column(ratio=2)),
    )
    with nullcontext() if quiet else Progress(*columns, console=err, expand=True) as bar:
        task = bar.add_task("rows", total=totals.expected, more="") if bar is not None else None

        def renew() -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=totals.rows, more=_line(totals))

        renew()
        yield renew


def _line(totals: Totals) -> str:
    left = totals.seconds_left
    clock = "" if left is None else f"{int(left // 3600)}:{int(left // 60) % 60:02d}:{int(left) % 60:02d} left, "
    return f"{totals.errors} errors, {totals.rate:.2f} rows/s, {clock}{totals.saved_tokens:,} visual tokens saved"


def _report(path: Path, totals: Totals, stopped: bool, settings: dict[str, Any], summary: str | None) -> None:
    report = json.dumps(totals.summary(settings), indent=1)
    if summary == "-":
        say(report)
    elif summary is not None:
        Path(summary).write_text(report + "\n", encoding="utf-8")
    left = totals.expected - totals.rows
    state = f"stopped; {left} rows are left: the same command goes on" if stopped and left else "done"
    note(f"{path}: {totals.rows} rows, {totals.errors} with errors; {state}")
