"""Runs that go on where they were: only with the same settings, in files that are whole at every moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def check_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on with a run that is another one.

    Raises:
        ValueError: naming the settings that differ.
    """
    if told := ", ".join(differences(before, now)):
        raise ValueError(f"{path} holds a run with other settings ({told}): give another --out, or the same settings")


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


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
