"""Designs inside the vision tower on the testbed, alone and in front of methods that compress behind it.

    python benchmarks/testbed_tower.py [-n 200] [--split test] [--noise 0] [--designs ...] [--behind ...] [--alone ...]
                                       [--rows FILE] [--json FILE]

Each design runs in the bundled tower of three blocks, in front of the first one (EarlyTom and ToMe where they merge),
on the clips of `holitom eval`. Differences are to the same method behind the untouched tower, on the same clips, with
95 % intervals by bootstrap. "tower" is the share of the tower's FLOPs that ran. --noise adds a camera's noise to each
pixel, in grey levels. A run with --rows can be stopped and goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from holitom.cli.loading import load
from holitom.evaluation import Log, evaluate, label
from holitom.evaluation.statistics import LEAKING, paired_bootstrap
from holitom.methods import Method, Uncompressed, parse
from holitom.methods.chain import Chain
from holitom.video.synthetic import suite

DESIGNS = ("renewal:layer=0", "renewal:layer=1", "renewal:layer=0,cut=segments", "tome:merged=0.5", "repeatframes")
BEHIND = ("uncompressed", "holitom:retention=0.25", "holitom:retention=0.1", "vcast:retention=0.25")
BEHIND = (*BEHIND, "vcast:retention=0.1", "spread:retention=0.25", "spread:retention=0.1")
ALONE = ("earlytom:retention=0.25", "earlytom:retention=0.1")  # with a selection of its own


def noisy(clip: Any, number: int, sigma: float) -> Any:
    """The clip as a camera with noise shows it."""
    random = np.random.default_rng(number)
    frames = clip.frames + sigma * random.standard_normal(clip.frames.shape)
    return dataclasses.replace(clip, frames=frames.round().clip(0, 255).astype(np.uint8))


def pairs(designs: list[str], methods: list[str]) -> dict[tuple[str, str], Method]:
    """Each design ("" for none) in front of each method."""
    found: dict[tuple[str, str], Method] = {}
    for behind in methods:
        method = parse(behind)
        for design in ("", *designs):
            first = parse(design) if design else None
            alone = isinstance(method, Uncompressed)
            found[design, behind] = method if first is None else first if alone else Chain.of(first, method)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--split", default="test")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS))
    parser.add_argument("--behind", nargs="*", default=list(BEHIND))
    parser.add_argument("--alone", nargs="*", default=list(ALONE))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pipeline, methods = load("tiny", "cpu", "auto", None), pairs(options.designs, options.behind)
    clips = suite(options.split, options.n, 0)
    if options.noise:
        clips = (noisy(clip, number, options.noise) for number, clip in enumerate(clips))
    settings = {"clips": options.n, "split": options.split, "noise": options.noise}
    everything = [*methods.values(), *map(parse, options.alone)]
    rows = evaluate(pipeline, clips, everything, Log(options.rows, settings))
    by_method: dict[str, list[Any]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    tasks = [task for task in dict.fromkeys(task for row in rows for task in row.tasks) if task not in LEAKING]
    found: dict[str, Any] = {"settings": settings, "table": []}
    for (design, behind), method in [*methods.items(), *(((text, text), parse(text)) for text in options.alone)]:
        mine = by_method[label(method)]
        base = by_method[label(parse(behind) if behind in BEHIND else Uncompressed())]
        mean, gap = paired_bootstrap(mine, base, tasks)
        tower = float(np.mean([row.tower_share for row in mine]))
        entry = {"design": design, "behind": behind, "tower": tower, "mean": mean.as_list(), "gap": gap.as_list()}
        found["table"].append(entry)
        low, high = 100 * gap.low, 100 * gap.high
        shown = f"{100 * mean.value:5.1f}  {100 * gap.value:+5.1f} [{low:+.1f}, {high:+.1f}]"
        print(f"{design or 'untouched':30s} {behind:24s} tower {100 * tower:5.1f} %  accuracy {shown}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
