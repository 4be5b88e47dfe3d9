"""What can be known to be wrong before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from holitom.cli.console import usage
from holitom.extras import require

if TYPE_CHECKING:
    from holitom.methods.base import Method

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_question(text: str) -> None:
    """Refuses an empty question, and one that is no text.

    Raises:
        typer.BadParameter: says why.
    """
    from holitom.corpus.questions import check_question as check

    with usage("QUESTION"):
        check(text)


def check_video(video: str) -> None:
    """Refuses a path at which there is no video; what has to be fetched is left to whoever fetches it.

    Raises:
        holitom.video.VideoError: says what is wrong with it.
    """
    from holitom.video.sources import located

    if not video.lower().startswith(("http://", "https://")):
        located(video)


def check_device(device: str | None) -> None:
    """Refuses a device that torch does not have here.

    Raises:
        typer.BadParameter: says why.
    """
    if device is None:
        return
    if device == "auto":
        require("accelerate", "--device auto")
        return
    import torch

    try:
        torch.empty(0, dtype=torch.float32, device=device)
        usable = device != "meta"
        why = "it computes nothing"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable, why = False, str(error).strip().partition("\n")[0]
    if not usable:
        raise typer.BadParameter(f"{device!r} cannot be used here ({why})", param_hint="--device")


def check_dtype(dtype: str) -> None:
    """Refuses what is no floating type of models.

    Raises:
        typer.BadParameter: names those that are.
    """
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")


def check_file(option: str, path: str | Path | None, endings: tuple[str, ...] = (), make: bool = False) -> None:
    """Refuses a place where a file cannot be written.

    Args:
        option: that names it.
        path: of the file; None: it is not wanted.
        endings: that its name may have, with the dot; none: any.
        make: whether missing folders will be made.

    Raises:
        typer.BadParameter: says why.
    """
    if path is None:
        return
    path = Path(path)
    problem = None
    if endings and path.suffix.lower() not in endings:
        problem = f"the name must end with {' or '.join(endings)}"
    elif path.is_dir():
        problem = "it is a folder: name a file"
    elif path.exists() and not os.access(path, os.W_OK):
        problem = "the file must not be written by you"
    else:
        problem = _folder_problem(path.absolute().parent, make)
    if problem:
        raise typer.BadParameter(f"{path}: {problem}", param_hint=option)


def check_folder(option: str, path: Path | None) -> None:
    """Refuses a place where no folder can be made or written into.

    Args:
        option: that names it.
        path: of the folder; None: it is not wanted.

    Raises:
        typer.BadParameter: says why.
    """
    problem = None if path is None else _folder_problem(path.absolute(), make=True)
    if problem:
        raise typer.BadParameter(f"{path}: {problem}", param_hint=option)


def check_one_question(method: Method | None, questions: Sequence[str], windows: bool) -> None:
    """Refuses a method that looks at the question where a video is read before it.

    Args:
        method: the method; None: there is none.
        questions: asked about every video.
        windows: whether videos are read in windows.

    Raises:
        typer.BadParameter: says what to do instead.
    """
    if method is not None and "question" in method.needs and (windows or len(questions) > 1):
        before = "videos are read in windows" if windows else f"each video is read once for {len(questions)} questions"
        raise typer.BadParameter(
            f"{method.name} looks at the question, but {before} before one is asked: use a method that needs none (see "
            "`holitom methods`), or ask one question in each run and leave --window and --tokens out",
            param_hint="--method",
        )


def _folder_problem(folder: Path, make: bool) -> str | None:
    if not folder.exists():
        if not make:
            return f"there is no folder {folder}: make it first"
        folder = next(each for each in folder.parents if each.exists())
    if not folder.is_dir():
        return f"{folder} is no folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} must not be written by you"
