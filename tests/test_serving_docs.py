"""The table of docs/serving.md is that of what was noted."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_what_ran():
    tables = runpy.run_path(str(ROOT / "docs" / "serving_table.py"), run_name="tables")
    runs = json.loads(tables["RUNS"].read_text("utf-8"))
    assert tables["table"](runs) in tables["PAGE"].read_text("utf-8")


def test_every_check_of_the_table_is_a_test():
    tables = runpy.run_path(str(ROOT / "docs" / "serving_table.py"), run_name="tables")
    source = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "serving").glob("test_*.py"))
    for test in tables["CHECKS"]:
        assert f"def {test}(" in source
