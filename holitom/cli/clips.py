"""``holitom clips``: synthetic clips as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holitom.cli import options
from holitom.cli.checks import check_folder
from holitom.cli.console import say

app = typer.Typer(
    help="Synthetic clips with questions, the data of the offline testbed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Keep ``make`` a subcommand although it is the only one."""


@app.command()
def make(
    out: Annotated[Path, typer.Option("--out", help="Folder for the videos and questions.jsonl; made if missing.")],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many clips.")] = 100,
    seed: options.Seed = 0,
    split: Annotated[str, typer.Option(help="train, val or test; the bundled model has seen train.")] = "test",
) -> None:
    """Write clips as mp4 files, and their questions with answers as JSON lines."""
    from holitom.video.synthetic import SPLITS
    from holitom.video.synthetic.files import write_clips

    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r} is none of {', '.join(SPLITS)}", param_hint="--split")
    check_folder("--out", out)
    path = write_clips(out, n, split, seed)
    say(f"{n} clips written to {out}, their questions to {path}")
