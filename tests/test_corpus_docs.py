"""The figures in docs/corpora.md are those of the committed benchmark."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_holds_the_measured_figures():
    tables = runpy.run_path(str(ROOT / "docs" / "corpus_tables.py"), run_name="tables")
    page = tables["PAGE"].read_text("utf-8")
    assert tables["written"](page, json.loads(tables["RESULT"].read_text("utf-8"))) == page
    assert "in one batch | one by one |" in page
