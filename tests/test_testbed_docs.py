"""The tables of docs/testbed.md and docs/tower.md are those of the committed runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "testbed_tables.py"


def test_the_tables_are_those_of_the_committed_runs(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--check"])
    runpy.run_path(str(SCRIPT), run_name="__main__")  # exits where a page differs
