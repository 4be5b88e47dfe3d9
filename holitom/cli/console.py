"""What all commands share: where messages go, and how errors are told."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

out = Console()
err = Console(stderr=True)


def fail(error: BaseException) -> NoReturn:
    """Tells an error as a sentence and exits with 1. ``--log-level debug`` of Python's logging shows where it arose."""
    logging.getLogger("holitom").debug("failed", exc_info=error)
    text = str(error).strip() or type(error).__name__
    err.print(f"[red bold]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def quiet_libraries() -> None:
    """Keeps transformers' own progress bars and advice out of a command's output."""
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
