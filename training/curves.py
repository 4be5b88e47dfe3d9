"""Draws the training curves from the JSONL logs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

from holitom.video.synthetic import TASKS

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def read(path: Path) -> list[dict]:
    """Read a JSONL log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def smooth(values: list[float], width: int = 8) -> np.ndarray:
    """Running mean over ``width`` rows."""
    kernel = np.ones(min(width, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def draw(out: Path, target: Path) -> None:
    """Draw both stages and the validation into one picture."""
    figure, (vision, answers, validation) = plt.subplots(1, 3, figsize=(16, 5))
    rows = read(out / "stage1.jsonl")
    minutes = [row["seconds"] / 60 for row in rows]
    for name in ("shape", "colour", "shape_background"):
        vision.plot(minutes, smooth([row[name] for row in rows]), label=name.replace("_", " "))
    vision.set(title="stage 1: cells labelled right", xlabel="minutes", ylim=(0, 1))
    rows = read(out / "stage2.jsonl")
    trained = [row for row in rows if "loss" in row]
    checked = [row for row in rows if "validation" in row]
    styles = ["-", "--"]
    for i, task in enumerate(TASKS):
        known = [row for row in trained if task in row]
        style = {"color": f"C{i % 10}", "linestyle": styles[i // 10]}
        answers.plot([row["seconds"] / 60 for row in known], smooth([row[task] for row in known]), label=task, **style)
        validation.plot(
            [row["seconds"] / 60 for row in checked], [row["validation"]["all"][task] for row in checked], **style
        )
    answers.set(title="stage 2: answers right in training (tokens dropped)", xlabel="minutes", ylim=(0, 1))
    validation.set(title="stage 2: validation, all tokens", xlabel="minutes", ylim=(0, 1))
    for axes in (vision, answers):
        axes.legend(fontsize=7)
    for axes in (vision, answers, validation):
        axes.grid(alpha=0.3)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(target, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--target", type=Path, default=Path("training/results/curves.png"))
    options = parser.parse_args()
    draw(options.out, options.target)
