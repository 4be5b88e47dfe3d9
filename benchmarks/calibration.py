"""Whether `holitom calibrate`, which has no labels, finds what labels say: both side by side on the bundled model.

    python benchmarks/calibration.py [-n 60] [--split val] [--rows FILE] [--json FILE]

Every question of the testbed is asked in full and under Spread at several retentions. The left columns are what
`holitom calibrate` prints; the right ones are the accuracy that `holitom eval` counts, on the same answers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from holitom.cli.loading import load
from holitom.evaluation import LEAKING, Log, label
from holitom.evaluation.calibration import Comparison, Encoded, risk, smallest
from holitom.evaluation.run import first_word
from holitom.methods import Spread
from holitom.video import Clip
from holitom.video.synthetic import suite

METHODS = [Spread(retention=share) for share in (0.05, 0.1, 0.15, 0.2, 0.25)]
BOUND = 0.02


def mean_of_tasks(rows: list[Comparison], truth: dict[tuple[str, str], tuple[str, str]], full: bool) -> float:
    """The mean over tasks of each task's accuracy, of the compressed answers or of the full ones."""
    right: dict[str, list[bool]] = {}
    for row in rows:
        task, answer = truth[row.video, row.question]
        right.setdefault(task, []).append(first_word(row.full if full else row.answer) == answer)
    return float(np.mean([np.mean(answers) for answers in right.values()]))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--split", default="val")
    parser.add_argument("--rows", type=Path, help="a file of rows; a run found there is continued")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pipeline = load("tiny", "cpu", "auto", None)
    log = Log(options.rows, {"model": "tiny", "split": options.split}, Comparison)
    known = {row.video for row in log.rows}
    truth: dict[tuple[str, str], tuple[str, str]] = {}
    for film in suite(options.split, options.n, 0):
        asked = [question for question in film.questions if question.task not in LEAKING]
        truth |= {(film.name, question.text): (question.task, question.answer) for question in asked}
        if film.name not in known:
            video = Encoded(pipeline, Clip.from_frames(film.frames, source=film.name), METHODS)
            fresh = [row for question in asked for row in video.compare(film.name, question.text, METHODS, 4)]
            for row in fresh:
                log.add(row)
    rows = [row for row in log.rows if (row.video, row.question) in truth]
    risks = [risk(rows, method) for method in METHODS]
    best, lines = smallest(risks, BOUND), []
    print(f"{'method':24s}{'answers that differ, %':>26s}{'first token':>13s}{'accuracy, %':>13s}{'lost, points':>14s}")
    for each in risks:
        mine = [row for row in rows if row.method == label(each.method)]
        full, ours = (100 * mean_of_tasks(mine, truth, kind) for kind in (True, False))
        value, low, high = (100 * part for part in each.disagreement)
        share = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        print(f"{label(each.method):24s}{share:>26s}{each.distance:>13.3f}{ours:>13.1f}{full - ours:>14.1f}")
        lines.append({"method": label(each.method), **each.as_dict(), "accuracy": ours, "lost": full - ours})
    within = [line for line in lines if line["lost"] <= 1]
    found = None if best is None else label(best.method)
    known_best = min(within, key=lambda line: line["tokens_entering"])["method"] if within else None
    print(f"calibrate, at most {100 * BOUND:g} % of the answers differ: {found}")
    print(f"eval, accuracy kept within 1 point: {known_best}")
    if options.json:
        report = {"clips": options.n, "split": options.split, "bound": BOUND, "methods": lines}
        options.json.write_text(json.dumps({**report, "calibrate": found, "eval": known_best}, indent=1) + "\n")


if __name__ == "__main__":
    main()
