"""``holitom eval``: accuracy on the clip suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holitom.cli import options
from holitom.cli.checks import check_folder
from holitom.cli.choices import choose_all
from holitom.cli.console import counted, note, optional, say_json, show
from holitom.cli.loading import load, resolve

if TYPE_CHECKING:
    from holitom.methods.base import Method

NAIVE = ("randomdrop", "uniformframes", "cellsample", "cellmean", "randominner", "randominner:merge=true")
QUICK = 32
FULL = 300


def evaluate(
    method: options.Methods = None,
    retention: options.Retentions = None,
    positions: options.EachPositions = None,
    tower: options.Tower = None,
    model: Annotated[str, typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")] = "tiny",
    number: Annotated[int | None, typer.Option("-n", "--number", min=1, help=f"Clips.  [default: {FULL}]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK} clips: minutes on two cores.")] = False,
    split: Annotated[str, typer.Option(help="val for choosing settings, test for reporting.")] = "test",
    seed: options.Seed = 0,
    out_folder: options.OutFolder = None,
    as_json: options.AsJson = False,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
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
    refused: dict[str, str] = {}

    def leave_out(refusing: Method, error: Exception) -> None:
        refused[label(refusing)] = str(error)
        note(f"left out {label(refusing)}: {error}")

    with counted("clips", count, hidden=as_json) as done:
        run(pipeline, clips, methods, log, done=done, refused=leave_out)
    wanted = {label(each) for each in methods} - refused.keys()
    names = {clip.name for clip in clips}
    rows = [row for row in log.rows if row.method in wanted and row.clip in names]
    table = accuracy_table(rows, label(UNCOMPRESSED))
    report = {**settings, "clips": count, "methods": table, "left_out": refused, "not_in_the_mean": list(LEAKING)}
    if out_folder is not None:
        _write(out_folder, report)
    if as_json:
        say_json(report)
        return
    from holitom.report.accuracy import accuracy_rich

    show(accuracy_rich(table))


def _write(folder: Path, report: dict[str, Any]) -> None:
    """The table as JSON, and as a plot where matplotlib is there."""
    from holitom.report.accuracy import accuracy_plot
    from holitom.resume import write_json

    write_json(folder / "accuracy.json", report)
    with optional("plot", ValueError):
        accuracy_plot(report["methods"], folder / "accuracy.png", f"{report['clips']} clips, model {report['model']}")
