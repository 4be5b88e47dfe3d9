"""Models for commands: by path, by hub id, or the one inside the package."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from holitom.cli.console import err, quiet_libraries

if TYPE_CHECKING:
    from holitom.pipeline import Pipeline

TINY = Path(__file__).parent.parent / "assets" / "tiny"


def resolve(name: str) -> str:
    """The path behind ``tiny``; every other name as it is.

    Raises:
        ValueError: when a path does not exist, or the package was built without the embedded model.
    """
    if name == "tiny":
        if not (TINY / "config.json").exists():
            raise ValueError("this build of holitom holds no embedded model: give --model with a path or a hub id")
        return str(TINY)
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"there is no model folder {name}: give the path of a checkpoint, a hub id, or `tiny`")
    return name


def load(name: str, device: str | None, dtype: str, attention: str | None, quiet: bool = False) -> Pipeline:
    """A pipeline, with a spinner while it loads."""
    import torch

    from holitom.pipeline import Pipeline

    quiet_libraries()
    path = resolve(name)
    wanted = torch.float32 if name == "tiny" and dtype == "auto" else dtype
    with nullcontext() if quiet else err.status(f"loading {name} ..."):
        try:
            return Pipeline.from_pretrained(path, device=device, dtype=wanted, attention=attention)
        except (ValueError, TypeError, OSError, ImportError):
            raise
        except Exception as error:  # whatever else transformers meets in a broken checkpoint
            raise ValueError(f"cannot load {name}: {error}") from error
