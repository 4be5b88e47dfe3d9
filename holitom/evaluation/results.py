"""Results on disk: one line for each clip and method, written as it is finished, so that a run can be resumed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holitom.resume import check_settings


@dataclass(frozen=True)
class Row:
    """What one method did on one clip.

    Args:
        clip: its name.
        method: the method's text form.
        tasks: of each question.
        answers: what the model said to each.
        right: whether that was right.
        visual_tokens: full, entering the LLM, mean over layers; of one question.
        prefill_flops: counted for one question's prompt (causal); None where the family's cost is not known.
        full_flops: the same uncompressed.
        tower_share: the share of the vision tower's FLOPs that ran; None where it is not known.
        paper_share: the share of the prefill FLOPs by the paper's formula; None where it is not known.
    """

    clip: str
    method: str
    tasks: list[str]
    answers: list[str]
    right: list[bool]
    visual_tokens: list[float]
    prefill_flops: float | None
    full_flops: float | None
    tower_share: float | None = None
    paper_share: float | None = None


class Log:
    """A JSONL file: a header with the run's settings, then rows. A torn last line (a killed run) is cut off.

    Args:
        path: the file, made if missing; None keeps everything in memory.
        settings: what must be the same for rows to belong together.
        kind: the dataclass of its rows.

    Raises:
        ValueError: when the file holds a run with other settings, naming the difference.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any], kind: type[Any] = Row) -> None:
        self.path = path
        self.rows: list[Any] = []
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines := _whole_lines(path):
            check_settings(path, lines[0], settings)
            self.rows = [kind(**line) for line in lines[1:]]
        else:
            self._append(settings)

    def add(self, row: Any) -> None:
        """Keeps a row; it is on the disk when this returns."""
        self.rows.append(row)
        self._append(asdict(row))

    def _append(self, line: dict[str, Any]) -> None:
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What the lines of a file say; the file, which may be missing, is cut behind the last whole one."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]  # before the file is changed: it may be another's
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return lines
