"""The command line: one file for each command, imported when that command is asked for."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from holitom import __version__

COMMANDS = {
    "ask": ("ask:ask", "Ask a question about a video, and see what compression saved."),
    "caption": ("caption:caption", "Ask questions about thousands of videos, into one table."),
    "eval": ("evaluate:evaluate", "Measure the accuracy of methods on generated clips."),
    "calibrate": ("calibrate:calibrate", "Find the smallest retention that changes no answers of yours."),
    "show": ("show:show", "See what was merged: a page for the browser, pictures, a film."),
    "demo": ("demo:demo", "Serve a page to upload a clip, ask, and see both answers."),
    "bench": ("bench:bench", "Measure time, memory and FLOPs beside the uncompressed model."),
    "serve": ("serve:serve", "Serve a model with vLLM, its videos compressed."),
    "recommend": ("recommend:recommend", "Name a setting to start with, and what was measured."),
    "methods": ("methods:methods", "List the methods."),
    "models": ("models:models", "List the families of models."),
    "clips": ("clips:app", "Make synthetic clips with questions."),
}
"""Each command: where it is below holitom.cli, and what `holitom --help` says of it."""


class Commands(Mapping[str, Any]):
    """All commands by name, each imported when it is looked up: `holitom --help` needs none of them."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name][0].partition(":")
        found = getattr(import_module(f"holitom.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name)(found)
            found = alone
        command = typer.main.get_command(found)
        command.name = name
        return command

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Group(TyperGroup):
    """All commands, listed without importing any."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


app = typer.Typer(
    name="holitom",
    cls=Group,
    help="Make video language models fast: merge redundant visual tokens before and inside the LLM.",
    no_args_is_help=True,
    rich_markup_mode=None,  # with it, help takes twice as long: it loads parsers of Markdown and of programs
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
        from holitom.cli.console import fail

        fail(error)
