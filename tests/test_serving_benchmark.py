"""benchmarks/serving.py as far as it runs without vLLM, and what was measured with it."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from holitom.bench.presets import preset
from holitom.integrations.vllm import ServingConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*/serving.json"))


@pytest.fixture
def serving(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("serving")


@pytest.mark.parametrize("model", ["llava-onevision-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_a_dry_run_for_a_gpu_prints_every_servers_command(serving, capsys, model):
    own = [] if "llava" in model else ["--method", "vllm:evs"]
    methods = ["--method", "plain vLLM", "--method", "evs", "--method", "vidcom2", "--method", "holitom", *own]
    serving.main(["--device", "cuda", "--model", model, "--dry-run", *methods])
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 + bool(own)
    assert "--hf-overrides" not in lines[0]
    shape = serving.SHAPES[model]
    counts = set()
    for words in lines[1:4]:
        settings = json.loads(words[words.index("--hf-overrides") + 1])
        assert settings["architectures"] == [f"HoliTom{shape.architecture}"]
        counts.add(ServingConfig.parse(settings["holitom"]).token_count(shape.groups, shape.grid))
    assert len(counts) == 1, "equal counts"
    if own:
        assert lines[4][lines[4].index("--video-pruning-rate") + 1] == "0.875"
    assert preset(shape.preset).side == shape.side


def test_counts_that_differ_are_no_result(serving):
    def cells(tokens):
        return {"1": {"seconds": 1.0, "requests": [{"first": 0.5, "last": 1.0, "prompt_tokens": tokens}]}}

    serving.check_counts({"plain vLLM": cells(800), "evs": cells(100), "holitom": cells(100)}, whole=784)
    with pytest.raises(SystemExit, match="not equal"):
        serving.check_counts({"plain vLLM": cells(800), "evs": cells(149), "holitom": cells(100)}, whole=784)
    with pytest.raises(SystemExit, match="left frames out"):
        serving.check_counts({"plain vLLM": cells(800), "evs": cells(100), "holitom": cells(100)}, whole=1568)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_what_was_measured_is_complete(serving, path):
    report = json.loads(path.read_text("utf-8"))
    settings = report["settings"]
    assert len(report["rounds"]) == settings["rounds"]
    for each in report["rounds"]:
        assert list(each) == settings["method"]
        serving.check_counts(each, report["video"]["tokens"])
        for cells in each.values():
            assert [len(cells[str(level)]["requests"]) for level in settings["concurrency"]] == settings["requests"]


def test_no_fault_was_left_where_a_server_was_loaded_and_killed():
    """The same is asked of every run, by benchmarks/serving_faults.py itself."""
    report = json.loads((BENCHMARKS / "results" / "serving_faults.json").read_text("utf-8"))
    load = report["load"]
    assert report["requests"] == sum(load["kinds"].values()) == 1000
    assert load["alive"]
    assert load["good"]["compared"] == load["kinds"]["good"]
    assert load["differing"] == []
    assert len(load["malformed"]) >= 20
    assert {status[0] for statuses in load["malformed"].values() for status in statuses} == {"4"}
    assert [load["after"][name] for name in ("running", "waiting", "kv_cache_usage")] == [0, 0, 0]
    for phase in ("load", "sigterm", "sigterm_with_timeout", "sigkill_engine", "sigkill_group"):
        assert report[phase].get("differing", []) == []
