"""What all commands share: where output, messages and errors go, and how they are written."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from holitom.extras import sentence

out = Console()
err = Console(stderr=True)

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: object) -> str:
    """Text for a terminal: what would steer it (escape sequences in a file's name, say) is spelled out."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def say(text: str) -> None:
    """What a model said, on standard output and as it is; only a terminal gets it :func:`clean`."""
    sys.stdout.write((clean(text) if sys.stdout.isatty() else text) + "\n")
    sys.stdout.flush()


def say_json(content: Any) -> None:
    """An answer to ``--json``."""
    say(json.dumps(content, indent=1))


@contextmanager
def counted(what: str, total: int, hidden: bool, named: bool = False) -> Iterator[Callable[[str], None]]:
    """A bar that counts up to a total. Gives the function to call with the name of each that is done.

    Args:
        what: is counted.
        total: of it.
        hidden: whether no bar is shown.
        named: whether the bar shows the latest name in place of ``what``.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=hidden) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda name: progress.update(bar, advance=1, description=name if named else what)


@contextmanager
def optional(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Goes on without a part of the output whose package is missing (or on further errors), and says so."""
    missing: tuple[type[Exception], ...] = (ImportError, *errors)
    try:
        yield
    except missing as error:
        note(f"no {what}: {error}")


@contextmanager
def usage(option: str | None = None) -> Iterator[None]:
    """Makes of the error that a value raises one of usage, which names the option."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def show(table: Table | Group) -> None:
    """Prints a table, or several; columns that do not wrap are never cut, however narrow the terminal."""
    wide = out.options.update(width=10_000)
    for each in table.renderables if isinstance(table, Group) else [table]:
        for column in each.columns if isinstance(each, Table) else ():
            if column.no_wrap:
                cells = [column.header, *column.cells]
                column.min_width = max(Measurement.get(out, wide, cell).maximum for cell in cells)
    Console(width=max(out.width, Measurement.get(out, wide, table).minimum)).print(table)


def note(text: str) -> None:
    """A line beside a command's output."""
    err.print(escape(clean(text)), highlight=False, emoji=False, soft_wrap=True)


def warn(text: str) -> None:
    """A warning beside a command's output."""
    err.print(f"[yellow]warning:[/] {escape(clean(text))}", highlight=False, emoji=False, soft_wrap=True)


def fail(error: BaseException) -> NoReturn:
    """Prints an error as a sentence and exits with 1. The logger ``holitom`` has the traceback, at level DEBUG."""
    logging.getLogger("holitom").debug("failed", exc_info=error)
    err.print(f"[red bold]error:[/] {escape(clean(sentence(error)))}", highlight=False, emoji=False, soft_wrap=True)
    sys.exit(1)


def quiet_libraries() -> None:
    """Keeps transformers' own progress bars and advice out of a command's output."""
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
