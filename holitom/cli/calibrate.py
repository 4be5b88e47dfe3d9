"""``holitom calibrate``: what compression changes on one's own videos, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from holitom.cli import options
from holitom.cli.choices import choose_all
from holitom.cli.console import counted, note, optional, say, say_json, show
from holitom.cli.loading import chosen_model, load, resolve

if TYPE_CHECKING:
    from holitom.evaluation.calibration import Risk

METHODS = ("spread", "holitom:layer=none")
RETENTIONS = (0.05, 0.1, 0.15, 0.25, 0.4)


def calibrate(
    source: Annotated[str, typer.Argument(help="Videos: a folder, a pattern in quotes, a table, or one file.")],
    question: Annotated[
        list[str] | None, typer.Option(help="A question to ask about every video; repeat for several.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Instead, JSON lines with `video` and `question`, as `holitom clips` writes.")
    ] = None,
    model: options.Model = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"A method of `holitom methods`; repeat.  [default: {' and '.join(METHODS)}]"),
    ] = None,
    retention: Annotated[
        list[float] | None,
        typer.Option(help=f"Share of visual tokens; repeat.  [default: {', '.join(map(str, RETENTIONS))}]"),
    ] = None,
    positions: options.EachPositions = None,
    tower: options.Tower = None,
    bound: Annotated[float, typer.Option(min=0, max=1, help="Largest share of answers that may differ.")] = 0.02,
    frames: options.Frames = None,
    max_new_tokens: options.MaxNewTokens = 32,
    out_folder: options.OutFolder = None,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="Write what was found beside the model, as holitom.json.")
    ] = False,
    as_json: options.AsJson = False,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
) -> None:
    """Find the smallest retention at which answers about your own videos stay what they are uncompressed.

    Needs no labels: answers and the first token's distribution are compared with those of the full prompt. An answer
    that is worded in another way counts as another answer, so ask for short ones.
    """
    from holitom.corpus import list_videos
    from holitom.corpus.questions import questions_by_video
    from holitom.evaluation import Log
    from holitom.evaluation.calibration import Comparison, compare, risk, smallest

    if (questions is None) == (not question):
        raise typer.BadParameter("give either --question, once or more, or --questions FILE", param_hint="--question")
    methods = choose_all(list(method or METHODS), list(retention or RETENTIONS), positions, tower)
    model = chosen_model(model)
    if recommend and not Path(resolve(model)).is_dir():
        raise typer.BadParameter(f"{model} is no folder that could be written to", param_hint="--recommend")
    videos = {item.path.removeprefix(source.rstrip("/") + "/"): item.address for item in list_videos(source)}
    if questions is not None:
        asked = questions_by_video(str(questions), videos)
    else:
        asked = [(name, path, each) for name, path in videos.items() for each in question or []]
    pipeline = load(model, device, dtype, None, quiet=as_json)
    settings = {"model": resolve(model), "frames": frames, "max_new_tokens": max_new_tokens, "dtype": dtype}
    log = Log(None if out_folder is None else out_folder / "rows.jsonl", settings, Comparison)
    with counted("questions", len(asked), hidden=as_json) as done:
        rows = compare(pipeline, asked, methods, log, frames=frames, max_new_tokens=max_new_tokens, done=done)
    named = {(name, each) for name, _, each in asked}
    rows = [row for row in rows if (row.video, row.question) in named]
    risks = [risk(rows, each) for each in methods]
    best = smallest(risks, bound)
    report = _report(settings, risks, best, bound)
    if out_folder is not None:
        _write(out_folder, report, rows)
    if as_json:
        say_json(report)
    else:
        show(_table(risks))
        say(_verdict(best, bound))
    if recommend and best is not None:
        from holitom.recommendation import Recommendation

        note(f"wrote {Recommendation(best.method, _measured(best, source)).write(resolve(model))}")


def _measured(best: Risk, source: str) -> str:
    value, low, high = (100 * part for part in best.disagreement)
    return (
        f"{best.answers} answers about {best.videos} videos of {source}: {value:.1f} % [{low:.1f}, {high:.1f}] differ "
        "from those to the full prompt (holitom calibrate)"
    )


def _verdict(best: Risk | None, bound: float) -> str:
    from holitom.evaluation import label

    if best is None:
        return f"no method keeps {100 - 100 * bound:g} % of the answers: try larger retentions, or a larger --bound"
    value, low, high = (100 * part for part in best.disagreement)
    known = "" if high <= 100 * bound else "; more videos or questions would narrow the interval"
    return (
        f"{label(best.method)} is the smallest that keeps {100 - 100 * bound:g} % of the answers: {value:.1f} % "
        f"[{low:.1f}, {high:.1f}] differ, {100 * best.tokens:.1f} % of the tokens stay{known}"
    )


def _report(settings: dict[str, Any], risks: list[Risk], best: Risk | None, bound: float) -> dict[str, Any]:
    from holitom.evaluation import label

    return {
        **settings,
        "bound": bound,
        "methods": {label(each.method): each.as_dict() for each in risks},
        "smallest": None if best is None else label(best.method),
    }


def _table(risks: list[Risk]) -> Table:
    from holitom.evaluation import label

    grid = Table(box=None, pad_edge=False)
    grid.add_column("method", overflow="fold")
    for column in ("tokens, %", "answers that differ, %", "distance of the first token"):
        grid.add_column(column, justify="right", no_wrap=True)
    for each in risks:
        value, low, high = (100 * part for part in each.disagreement)
        share = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        grid.add_row(label(each.method), f"{100 * each.tokens:.1f}", share, f"{each.distance:.3f}")
    return grid


def _write(folder: Path, report: dict[str, Any], rows: list[Any]) -> None:
    """The table as JSON, the rows as Parquet, and a plot, the last two where what they need is there."""
    from holitom.evaluation.calibration import write_rows
    from holitom.report.accuracy import risk_plot
    from holitom.resume import write_json

    write_json(folder / "calibration.json", report)
    with optional("table of rows"):
        write_rows(rows, folder / "rows.parquet")
    with optional("plot"):
        risk_plot(report, folder / "calibration.png")
