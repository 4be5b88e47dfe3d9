"""Models for commands: by path, by hub id, or the one inside the package."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from holitom.cli.checks import check_device, check_dtype
from holitom.cli.console import err, note, quiet_libraries

if TYPE_CHECKING:
    from holitom.pipeline import Pipeline
    from holitom.recommendation import Recommendation

TINY = Path(__file__).parent.parent / "assets" / "tiny"
HUB_SECONDS = 4.0


def chosen_model(name: str | None) -> str:
    """The model that a command works with: without --model the one inside the package, and then it says so."""
    if name is None:
        note(
            "without --model the tiny model inside the package answers, which knows nothing but synthetic clips of "
            "coloured shapes: give --model with the path or hub id of a video model"
        )
    return name or "tiny"


def recommended(model: str) -> Recommendation | None:
    """What lies beside the weights of a model: the defaults of commands where the user names none.

    Raises:
        ValueError: when there is no such model, or what lies there is no recommendation.
    """
    from holitom.recommendation import Recommendation

    return Recommendation.beside(resolve(model)) if model else None


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


def check_model(name: str) -> None:
    """Refuses a model that is neither here nor on the hub, after a few seconds at most.

    Raises:
        ValueError: says whether there is no such model or no network.
    """
    path = resolve(name)
    if Path(path).exists():
        return
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    found: list[Exception | None] = []

    def look() -> None:
        try:
            if not isinstance(try_to_load_from_cache(name, "config.json"), str):
                HfApi().model_info(name, timeout=HUB_SECONDS)
            found.append(None)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS + 0.5)
    problem = found[0] if found else TimeoutError(f"no answer in {HUB_SECONDS:g} s")
    if isinstance(problem, HFValidationError | RepositoryNotFoundError):
        raise ValueError(
            f"there is no folder {name} here, and no such model on the hub that you may read: give the path or hub id "
            "of a checkpoint, or `tiny`"
        ) from problem
    if problem is not None:
        raise ValueError(
            f"there is no folder {name} here, and the hub cannot be reached ({problem}): give the path of a checkpoint "
            "on this machine, or `tiny`"
        ) from problem


def load(name: str, device: str | None, dtype: str, attention: str | None, quiet: bool = False) -> Pipeline:
    """A pipeline, with a spinner while it loads."""
    check_device(device)
    check_dtype(dtype)
    check_model(name)
    import torch

    from holitom.pipeline import Pipeline

    quiet_libraries()
    path = resolve(name)
    wanted = torch.float32 if name == "tiny" and dtype == "auto" else dtype
    with nullcontext() if quiet else err.status(f"loading {name} ..."):
        try:
            return Pipeline.from_pretrained(path, device=device, dtype=wanted, attn_implementation=attention)
        except (ValueError, TypeError, OSError, ImportError):
            raise
        except Exception as error:  # whatever else transformers meets in a broken checkpoint
            raise ValueError(f"cannot load {name}: {error}") from error
