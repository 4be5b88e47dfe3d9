"""Going on without a torchvision that does not fit the installed torch."""

from __future__ import annotations

import importlib
import sys


def hide_broken_torchvision() -> None:
    """Lets transformers go on without torchvision where importing it fails.

    A torchvision built for another torch raises when it is imported, and transformers imports it with all models that
    take pictures wherever it is installed. Afterwards transformers finds none, for the rest of the process: models
    that need none load, and what needs it says so.
    """
    try:
        importlib.import_module("transformers.image_utils")
    except Exception as error:  # whatever a library that does not fit raises
        if not _from_torchvision(error):
            raise
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # the import system's word for "there is none"
        from transformers.utils import import_utils

        for name in dir(import_utils):
            if name.startswith("is_torchvision") and hasattr(getattr(import_utils, name), "cache_clear"):
                getattr(import_utils, name).cache_clear()
        importlib.import_module("transformers.image_utils")


def is_torchvision_hidden() -> bool:
    """Whether :func:`hide_broken_torchvision` had to."""
    return sys.modules.get("torchvision", sys) is None


def _from_torchvision(error: BaseException | None) -> bool:
    """Whether an error or one of its causes arose in torchvision."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__name__", "").split(".")[0] == "torchvision":
                return True
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False
