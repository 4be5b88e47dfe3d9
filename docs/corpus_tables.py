"""Writes the figures of docs/corpora.md from the JSON of `python benchmarks/corpus.py`.

python docs/corpus_tables.py            rewrite the page
python docs/corpus_tables.py --check    fail when the page and the JSON differ
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "corpora.md"
RESULT = ROOT / "benchmarks" / "results" / "corpus.json"
BLOCK = re.compile(r"(<!-- figures: (?P<kind>[a-z ]+) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)


def rates(report: dict[str, Any]) -> str:
    """Rows per second beside a plain loop."""
    if "rates" not in report:
        return (
            "How many rows a second two workers give beside a plain loop of `holitom ask` is **not measured yet** on a "
            "machine with\nnothing else to do; `python benchmarks/corpus.py --part rates` measures it."
        )
    commands, report = report["commands"], report["rates"]
    film = report["film"]
    names = {
        "synthetic clips": "synthetic clips, 16 frames of 112 x 112",
        "films": f"films, {film['frames']} frames of {film['width']} x {film['height']}",
    }
    lines = [
        "| rows/s | a loop of commands | a loop in one process | two workers | ratio to the loop in one process |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for key, name in names.items():
        part = report[key]
        speed, ratio = part["rows_per_second"], part["ratio"]
        lines.append(
            f"| {name} | {commands[key]['rows_per_second']:.2f} | {speed['plain loop']:.2f} | "
            f"{speed['two workers']:.2f} | {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f}) |"
        )
    return "\n".join(lines)


def further(report: dict[str, Any]) -> str:
    """A further question over the first."""
    count = report["further questions"]["questions"] - 1
    lines = [
        f"Processor time of each of {count} further questions over that of the first one (decoding, encoding, answer), "
        "with the\nmodel in the package on a CPU, `python benchmarks/corpus.py --part questions`:\n",
        "| | in one batch | one by one |",
        "| --- | ---: | ---: |",
    ]
    names = {"inner stage": "`holitom`, with its stage inside the LLM", "before the LLM alone": "`holitom:layer=None`"}
    for key, name in names.items():
        part = report["further questions"][key]
        shares = (part["further_over_first_in_one_batch"], part["further_over_first_one_by_one"])
        lines.append(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return "\n".join(lines)


def written(page: str, report: dict[str, Any]) -> str:
    """The page with the figures of a report."""
    kinds = {"rates": rates, "further questions": further}
    return BLOCK.sub(lambda found: f"{found[1]}{kinds[found['kind']](report)}\n{found['end']}", page)


def main() -> None:
    """Rewrites or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    page = PAGE.read_text("utf-8")
    new = written(page, json.loads(RESULT.read_text("utf-8")))
    if parser.parse_args().check:
        sys.exit("run `python docs/corpus_tables.py`" if new != page else 0)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
