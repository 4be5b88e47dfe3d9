"""The command line: one file for each command."""

from __future__ import annotations

import io
import sys

import typer

from holitom import __version__
from holitom.cli import clips, methods, models
from holitom.cli.ask import ask
from holitom.cli.bench import bench
from holitom.cli.calibrate import calibrate
from holitom.cli.caption import caption
from holitom.cli.console import fail
from holitom.cli.demo import demo
from holitom.cli.evaluate import evaluate
from holitom.cli.recommend import recommend
from holitom.cli.serve import serve
from holitom.cli.show import show

app = typer.Typer(
    name="holitom",
    help="Make video language models fast: merge redundant visual tokens before and inside the LLM.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holitom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of all commands."""


app.command()(ask)
app.command()(caption)
app.command("eval")(evaluate)
app.command()(calibrate)
app.command()(show)
app.command()(demo)
app.command()(bench)
app.command()(serve)
app.command()(recommend)
app.command()(methods.methods)
app.command()(models.models)
app.add_typer(clips.app, name="clips")


def main() -> None:
    """The console script. Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding cannot hold is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="holitom")  # also as python -m holitom: --install-completion asks by this name
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        fail(error)
