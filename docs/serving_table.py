"""Writes the table of docs/serving.md that says what was run on which vLLM, from what `make serving` has noted.

make serving RUNS=benchmarks/results/serving_runs.json    run, and note what ran
python docs/serving_table.py                              rewrite the page
python docs/serving_table.py --check                      fail when the page and the JSON differ
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "serving.md"
RUNS = ROOT / "benchmarks" / "results" / "serving_runs.json"
BLOCK = re.compile(r"(<!-- table: what ran -->\n).*?(<!-- end -->)", re.DOTALL)
MODELS = {
    "llava_onevision": "LLaVA-OneVision",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL MoE",
    "cosmos3": "Cosmos 3",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5 MoE",
}
CHECKS = {
    "test_pruning_nothing_is_stock_vllm": "retention 1 answers as stock vLLM",
    "test_a_hit_in_the_prefix_cache_changes_nothing": "a hit in the prefix cache changes nothing",
    "test_requests_at_once_are_answered_as_alone": "requests at once are answered as alone",
    "test_chunked_prefill_changes_nothing": "chunked prefill changes nothing",
    "test_preemption_changes_nothing": "preemption changes nothing",
    "test_the_same_merge_and_the_same_answer": "the same merges and answers as with transformers",
    "test_a_long_video_is_encoded_in_parts_as_in_one_pass": "a long video in parts as in one pass",
    "test_answers_are_those_without_graphs": "encoder CUDA graphs (emulated) change nothing",
    "test_both_runners_say_the_same": "runner V2 answers as V1",
    "test_every_token_of_a_prompt_has_its_place": "every position is that of transformers",
}


def table(runs: dict[str, Any]) -> str:
    """A row for each model, a column for each version and runner."""
    columns = [(version, runner) for version in sorted(runs) for runner in sorted(runs[version])]
    lines = [
        "| | " + " | ".join(f"{version}, runner {runner}" for version, runner in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for key, name in MODELS.items():
        cells = [cell(runs[version][runner].get(key, {})) for version, runner in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    legend = "; ".join(f"{number}: {text}" for number, text in enumerate(CHECKS.values(), 1))
    return "\n".join([*lines, "", *textwrap.wrap(f"{legend}.", 120)])


def cell(outcomes: dict[str, str]) -> str:
    """The numbers of the checks that passed, and of those that did not."""
    numbers = {
        outcome: [number for number, test in enumerate(CHECKS, 1) if outcomes.get(test) == outcome]
        for outcome in ("passed", "failed")
    }
    passed, failed = (", ".join(map(str, each)) for each in numbers.values())
    return f"{passed} **failed: {failed}**" if failed else passed or "not run"


def main() -> None:
    """Rewrites or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    page = PAGE.read_text("utf-8")
    runs = json.loads(RUNS.read_text("utf-8"))
    new = BLOCK.sub(lambda found: f"{found[1]}{table(runs)}\n{found[2]}", page)
    if parser.parse_args().check:
        sys.exit("run `python docs/serving_table.py`" if new != page else 0)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
