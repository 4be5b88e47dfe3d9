"""What a checkpoint itself recommends: a small file beside the weights, read as the default of commands."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from holitom.methods.base import Method
from holitom.methods.registry import parse, spell
from holitom.resume import write_json

FILE = "holitom.json"


@dataclass(frozen=True)
class Recommendation:
    """The method at which a checkpoint was found to answer well, and on what that was measured.

    ``holitom.json`` holds both, the method as text or as settings: all its stages, its retention and its positions. ::

        {"method": "spread:retention=0.25", "measured_on": "200 clips of holitom.video.synthetic, split val"}

    Args:
        method: the method.
        measured_on: the videos, questions and numbers behind it, in a sentence.
    """

    method: Method
    measured_on: str

    @classmethod
    def beside(cls, checkpoint: str | Path) -> Self | None:
        """What lies beside the weights of a checkpoint; None where nothing does.

        Args:
            checkpoint: a folder, or the id of a checkpoint on the hub, of which what has been downloaded is looked at.

        Raises:
            ValueError: when the file is no recommendation, naming it and what is wrong.
        """
        path = local_file(checkpoint, FILE)
        if path is None:
            return None
        try:
            content = json.loads(path.read_text("utf-8"))
            if not isinstance(content, dict) or set(content) != {"method", "measured_on"}:
                raise ValueError("it must hold 'method' and 'measured_on', and nothing else")
            return cls(parse(content["method"]), str(content["measured_on"]))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no recommendation of a method: {error}") from error

    @property
    def retention(self) -> float | None:
        """The share of the tokens that enter the LLM, where the method has that setting."""
        share: Any = getattr(self.method.stage("before"), "retention", None)
        return share if isinstance(share, float) else None

    def write(self, checkpoint: str | Path) -> Path:
        """Writes the file beside the weights in a folder, over one that is there.

        Raises:
            FileNotFoundError: when there is no such folder.
        """
        path = Path(checkpoint) / FILE
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder of a checkpoint", str(checkpoint))
        write_json(path, {"method": spell(self.method), "measured_on": self.measured_on})
        return path


def local_file(checkpoint: str | Path, name: str) -> Path | None:
    """A file of a checkpoint as it lies on this machine; None where it does not.

    Args:
        checkpoint: a folder, or the id of a checkpoint on the hub, of which what has been downloaded is looked at.
        name: of the file.
    """
    path: Any = Path(checkpoint) / name
    if not Path(checkpoint).is_dir():
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(str(checkpoint), name)  # a str; None, or an object where it is known not to exist
    return Path(path) if isinstance(path, str | Path) and Path(path).is_file() else None
