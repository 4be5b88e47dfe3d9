"""benchmarks/serving_faults.py with few requests: nothing is answered with another's video, nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving_faults.py"


@pytest.mark.slow
def test_malformed_requests_and_signals_leave_nothing(tmp_path: Path):
    out = tmp_path / "report.json"
    words = [sys.executable, str(SCRIPT), "--requests", "120", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    load = json.loads(out.read_text("utf-8"))["load"]
    assert load["good"]["compared"] == load["kinds"]["good"] > 50
    assert load["distinct_answers"] > 20
    assert len(load["malformed"]) > 15
