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


def test_the_soak_ended_as_the_page_says():
    report = json.loads((ROOT / "benchmarks" / "results" / "soak.json").read_text("utf-8"))
    runs, kinds = (report["undisturbed"], report["killed"]), report["kinds"]
    page = (ROOT / "docs" / "corpora.md").read_text("utf-8").replace("\n", " ")
    hostile = report["items"] - kinds["good"]
    assert f"asks {report['items']:,} small videos, {hostile} of them cut off" in page
    assert report["equal"]
    assert {run["rows"] for run in runs} == {report["items"]}
    assert len(report["killed"]["kills"]) == 3
    assert {kill["processes_after_5_s"] for kill in report["killed"]["kills"]} == {0}
    assert f"at most {max(run['most_temporary_files'] for run in runs)} temporary files at a time" in page
    assert {run["temporary_files_after"] for run in runs} == {0}
    assert report["undisturbed"]["errors"] == hostile
    thirds = [round(each) for each in report["undisturbed"]["model_process_mib_by_thirds"]]
    assert f"held {thirds[0]}, {thirds[1]} and {thirds[2]} MiB by thirds" in page
    assert max(thirds) < 1.05 * min(thirds), "it grows"
