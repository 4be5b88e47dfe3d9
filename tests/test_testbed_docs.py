"""The tables of docs/testbed.md and docs/tower.md are those of the committed runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "testbed_tables.py"


def test_the_tables_are_those_of_the_committed_runs():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
