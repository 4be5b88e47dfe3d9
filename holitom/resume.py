"""Runs that go on where they were: only with the same settings, in files that are whole at every moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on with a run that is another one.

    Raises:
        ValueError: naming the settings that differ.
    """
    if changed := ", ".join(differences(before, now)):
        raise ValueError(
            f"{path} holds a run with other settings ({changed}): give another --out, or the same settings"
        )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Each setting that differs, as text; settings within settings as ``method.retention``."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*before, *now}):
            found += differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
        return found
    return [f"{name} was {before!r} and is now {now!r}"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another path to write to, from which the file moves to ``path`` at once; an old one stays if the block fails."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
