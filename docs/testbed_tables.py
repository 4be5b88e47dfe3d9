"""Writes the tables of docs/testbed.md and docs/tower.md from the JSON of committed runs.

python docs/testbed_tables.py            rewrite the pages
python docs/testbed_tables.py --check    fail when a page and the JSON differ
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from holitom.evaluation import KINDS  # noqa: E402
from holitom.methods import parse  # noqa: E402

PAGES = ("testbed.md", "tower.md")
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: (?P<file>\S+) (?P<kind>\S+) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)


def percent(interval: list[float], sign: str = "") -> str:
    """A value and its interval, in percent."""
    value, low, high = (100 * part for part in interval)
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def means(methods: dict[str, Any]) -> str:
    """One line for each method: accuracy, difference, tokens, FLOPs."""
    lines = [
        "| method | accuracy, % | against uncompressed | tokens in, % | tokens per layer, % | prefill FLOPs, % |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, entry in methods.items():
        gap = percent(entry["difference"], "+") if any(entry["difference"]) else ""
        shares = " | ".join(f"{100 * entry[key]:.1f}" for key in ("tokens_entering", "tokens_mean", "prefill_flops"))
        lines.append(f"| `{name.replace('|', ' then ')}` | {percent(entry['mean'])} | {gap} | {shares} |")
    return "\n".join(lines)


def grid(methods: dict[str, Any]) -> str:
    """One line for each method, one column for each share of the tokens, in both position modes."""
    found: dict[str, dict[tuple[str, float | None], str]] = {}
    shares: set[float] = set()
    for label, entry in methods.items():
        method = parse(label)
        share, (value, low, high) = getattr(method, "retention", None), (100 * part for part in entry["mean"])
        shares |= {share} if share is not None else set()
        cell = f"{value:.1f} ± {(high - low) / 2:.1f}"
        name = re.sub(r"(positions|retention|exact)=[^,]*,?", "", label).rstrip(":,")
        found.setdefault(name, {})[method.positions, share] = cell
    lines = []
    for positions in ("compact", "original"):
        columns = sorted(shares, reverse=True)
        told = " | ".join(f"{100 * share:g} %" for share in columns)
        lines += [f"| {positions} positions | {told} | one setting |", "| --- |" + " ---: |" * (len(columns) + 1)]
        for name, cells in found.items():
            row = [cells.get((positions, share), "") for share in (*columns, None)]
            lines += [f"| `{name}` | {' | '.join(row)} |"] if any(row) else []
        lines.append("")
    return "\n".join(lines[:-1])


def tasks(methods: dict[str, Any]) -> str:
    """One line for each task, one column for each method."""
    names = list(methods)
    lines = [
        "| task | " + " | ".join(f"`{name.replace('|', ' then ')}`" for name in names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for task in dict.fromkeys(task for entry in methods.values() for task in entry["tasks"]):
        cells = " | ".join(f"{100 * methods[name]['tasks'][task]:.0f}" for name in names)
        lines.append(f"| {task.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


def kinds(methods: dict[str, Any], against: str = "") -> str:
    """One line for each method: accuracy, the same by kind of task, and the difference to another method."""
    lines = [
        f"| method | accuracy, % | {' | '.join(KINDS)} | against `{against}` | tokens in, % |",
        "| --- | ---: |" + " ---: |" * len(KINDS) + " ---: | ---: |",
    ]
    for name, entry in methods.items():
        means = [[entry["tasks"][task] for task in members] for members in KINDS.values()]
        cells = " | ".join(f"{100 * sum(part) / len(part):.0f}" for part in means)
        gap = percent(entry["difference"], "+") if any(entry["difference"]) else ""
        shown = name.replace("|", " then ")
        lines.append(
            f"| `{shown}` | {percent(entry['mean'])} | {cells} | {gap} | {100 * entry['tokens_entering']:.1f} |"
        )
    return "\n".join(lines)


def pairs(methods: dict[str, Any], differences: dict[str, Any]) -> str:
    """One line for each method: accuracy, and the difference to the method that it is compared with."""
    against = {key.split(" - ")[0]: (key.split(" - ")[1], value) for key, value in differences.items()}
    lines = [
        "| method | accuracy, % | against | difference | tokens in, % |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name, entry in methods.items():
        other, gap = against.get(name, ("", None))
        shown, by = f"`{other}`" if other else "", percent(gap, "+") if gap else ""
        tokens = f"{100 * entry['tokens_entering']:.1f}"
        lines.append(f"| `{name}` | {percent(entry['mean'])} | {shown} | {by} | {tokens} |")
    return "\n".join(lines)


def calibration(methods: list[dict[str, Any]]) -> str:
    """One line for each method: what calibrate finds, and what labels say."""
    lines = [
        "| method | answers that differ, % | distance of the first token | accuracy, % | lost, points |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for entry in methods:
        share, rest = percent(entry["disagreement"]), f"{entry['accuracy']:.1f} | {entry['lost']:.1f}"
        lines.append(f"| `{entry['method']}` | {share} | {entry['first_token_distance']:.3f} | {rest} |")
    return "\n".join(lines)


def tower(rows: list[dict[str, Any]]) -> str:
    """One line for each design inside the tower, one column for each method behind it: differences in points."""
    behind = list(dict.fromkeys(row["behind"] for row in rows if row["behind"]))
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["design"], {})[row["behind"] or "uncompressed"] = row
    names = ["alone" if name == "uncompressed" else f"`{name}`" for name in behind]
    lines = [
        f"| inside the tower | tower FLOPs, % | {' | '.join(names)} |",
        "| --- | ---: |" + " ---: |" * len(behind),
    ]
    for design, cells in found.items():
        shares = [100 * row["tower"] for row in cells.values()]
        shown = (
            ("" if row is None else percent(row["gap"], "+") if design else f"{100 * row['mean'][0]:.1f}")
            for row in map(cells.get, behind)
        )
        name = f"`{design}`" if design else "nothing: accuracy, %"
        lines.append(f"| {name} | {statistics.mean(shares):.0f} | {' | '.join(shown)} |")
    return "\n".join(lines)


def seconds(report: dict[str, Any]) -> str:
    """One line for each static share: rows, and the time over the untouched tower's."""
    lines = ["| static, % | rows computed, % | time over the untouched tower | |", "| ---: | ---: | ---: | --- |"]
    for static, rows in report["rows"].items():
        ratios = [each[static] / each["untouched"] for each in report["rounds"]]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}" if len(ratios) > 1 else ""
        lines.append(f"| {100 * float(static):.0f} | {100 * rows:.0f} | {statistics.median(ratios):.3f} | {spread} |")
    settings, machine = report["settings"], report["machine"]
    whole = statistics.median(each["untouched"] for each in report["rounds"])
    rounds, threads = len(report["rounds"]), settings["threads"]
    note = (
        f"{settings['tower']}, {settings['frames']} frames, {settings['blocks']} blocks, {settings['dtype']}: "
        f"{whole:.1f} s of {settings['clock']} time untouched, on {threads} thread{'s' * (threads != 1)} of "
        f"{machine['cpu']} with {machine['cores']} cores; median of {rounds} "
        f"round{'s' * (rounds != 1)}. Random weights."
    )
    return "\n".join([*lines, "", note])


def fill(match: re.Match[str]) -> str:
    """The block with its table as the JSON says."""
    report = json.loads((RESULTS / match["file"]).read_text())
    if match["kind"] == "seconds":
        return f"{match[1]}\n{seconds(report)}\n\n{match['end']}"
    rows = report.get("methods") or report["rows"]
    if match["kind"] == "kinds":
        table = kinds(rows, report["against"])
    elif match["kind"] == "pairs":
        table = pairs(rows, report["pairs"])
    else:
        table = {"means": means, "grid": grid, "tasks": tasks, "calibration": calibration, "tower": tower}[
            match["kind"]
        ](rows)
    return f"{match[1]}\n{table}\n\n{report['clips']} clips of the {report['split']} split.\n\n{match['end']}"


def main() -> None:
    """Rewrites or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text("utf-8")
        new, tables = BLOCK.subn(fill, text)
        if tables != text.count("<!-- table:"):
            sys.exit(
                f"docs/{page}: {text.count('<!-- table:')} tables begin, but {tables} of them end with <!-- end -->"
            )
        if not options.check:
            (ROOT / "docs" / page).write_text(new, "utf-8")
        elif new != text:
            sys.exit(f"docs/{page} differs from benchmarks/results: run docs/testbed_tables.py")


if __name__ == "__main__":
    main()
