"""``holitom eval``: accuracy on the clip suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from holitom.cli.checks import check_folder
from holitom.cli.choices import POSITIONS, TOWER, choose_all
from holitom.cli.console import err, note, say, show
from holitom.cli.loading import load, resolve

if TYPE_CHECKING:
    from holitom.methods.base import Method

NAIVE = ("randomdrop", "uniformframes", "cellsample", "cellmean", "randominner", "randominner:merge=true")
QUICK = 32
FULL = 300


def evaluate(
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method of `holitom methods`; repeat for several, or `all`.  [default: holitom]"),
    ] = None,
    retention: Annotated[
        list[float] | None, typer.Option(help="Share of visual tokens; repeat for several.  [default: 0.1]")
    ] = None,
    positions: Annotated[list[str] | None, typer.Option(help=f"{POSITIONS} Repeat for both.")] = None,
    tower: Annotated[str | None, typer.Option(help=TOWER)] = None,
    model: Annotated[str, typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")] = "tiny",
    number: Annotated[int | None, typer.Option("-n", "--number", min=1, help=f"Clips.  [default: {FULL}]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK} clips: minutes on two cores.")] = False,
    split: Annotated[str, typer.Option(help="val for choosing settings, test for reporting.")] = "test",
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other clips.")] = 0,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for rows, table and plot; a run found there is continued.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Measure methods on generated clips with known answers, beside the uncompressed model and naive baselines.

    A testbed for comparing methods on equal terms, not a benchmark of large models.
    """
    from holitom.evaluation import LEAKING, Log, accuracy_table, label
    from holitom.evaluation import evaluate as run
    from holitom.evaluation.run import UNCOMPRESSED
    from holitom.video.synthetic import SPLITS, suite

    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r} is none of {', '.join(SPLITS)}", param_hint="--split")
    check_folder("--out", out_folder)
    methods = [UNCOMPRESSED, *choose_all([*(method or ["holitom"]), *NAIVE], retention or [0.1], positions, tower)]
    count = number or (QUICK if quick else FULL)
    pipeline = load(model, device, dtype, None, quiet=as_json)
    settings = {"model": resolve(model) if model != "tiny" else model, "split": split, "seed": seed, "dtype": dtype}
    log = Log(None if out_folder is None else out_folder / "rows.jsonl", settings)
    clips = suite(split, count, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    refused: dict[str, str] = {}

    def leave_out(refusing: Method, error: Exception) -> None:
        refused[label(refusing)] = str(error)
        note(f"left out {label(refusing)}: {error}")

    with Progress(*columns, console=err, disable=as_json) as progress:
        bar = progress.add_task("clips", total=count)
        run(pipeline, clips, methods, log, done=lambda _: progress.advance(bar), refused=leave_out)
    wanted = {label(each) for each in methods} - refused.keys()
    names = {clip.name for clip in clips}
    rows = [row for row in log.rows if row.method in wanted and row.clip in names]
    table = accuracy_table(rows, label(UNCOMPRESSED))
    report = {**settings, "clips": count, "methods": table, "left_out": refused, "not_in_the_mean": list(LEAKING)}
    if out_folder is not None:
        _write(out_folder, report)
    if as_json:
        say(json.dumps(report, indent=1))
        return
    from holitom.report.accuracy import accuracy_rich

    show(accuracy_rich(table))


def _write(folder: Path, report: dict[str, Any]) -> None:
    """The table as JSON, and as a plot where matplotlib is there."""
    from holitom.report.accuracy import accuracy_plot

    (folder / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    try:
        accuracy_plot(report["methods"], folder / "accuracy.png", f"{report['clips']} clips, model {report['model']}")
    except (ImportError, ValueError) as error:
        note(f"no plot: {error}")
