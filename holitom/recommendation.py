"""What a checkpoint itself recommends: a small file beside the weights, read as the default of commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from holitom.methods.base import Method
from holitom.methods.registry import parse, spell

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
        path = Path(checkpoint) / FILE
        if not Path(checkpoint).is_dir():
            from transformers.utils import cached_file

            found = cached_file(
                str(checkpoint),
                FILE,
                local_files_only=True,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
            )
            if found is None:
                return None
            path = Path(found)
        if not path.is_file():
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
        """Writes the file beside the weights in a folder, over one that is there."""
        path = Path(checkpoint) / FILE
        content = {"method": spell(self.method), "measured_on": self.measured_on}
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        return path
