"""Designs inside the vision tower on the testbed, alone and in front of methods that compress behind it.

    python benchmarks/testbed_tower.py [-n 200] [--split test] [--noise 0] [--pan 0] [--designs ...] [--behind ...]
                                       [--alone ...] [--rows FOLDER] [--shard I/N] [--json FILE]

Each design runs in the bundled tower of three blocks, in front of the first one (EarlyTom and ToMe where they merge),
on the clips of `holitom eval`; a clip is encoded once for each design. Differences are to the same method behind the
untouched tower, on the same clips, with 95 % intervals by bootstrap. "tower" is the share of the tower's FLOPs that
ran. --noise adds a camera's noise to each pixel, in grey levels. --pan has the camera turn in every clip, evenly, so
many pixels of 112 to either side of its middle (at most 8).

A run with --rows can be stopped and goes on where it was. --shard 1/8 ... 8/8 in processes of their own do a part of
the clips each; afterwards the same command without --shard prints the table of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from holitom.cli.loading import load
from holitom.evaluation import Log, evaluate, label
from holitom.evaluation.statistics import LEAKING, paired_bootstrap
from holitom.methods import Method, Uncompressed, parse
from holitom.methods.chain import Chain
from holitom.video.synthetic import SyntheticClip
from holitom.video.synthetic.questions import ask
from holitom.video.synthetic.render import render
from holitom.video.synthetic.scene import FRAMES, sample_scenes
from holitom.video.synthetic.suite import BLOCK, seed_of

DESIGNS = ("renewal:layer=0", "renewal:layer=1", "renewal:layer=0,cut=segments", "tome:merged=0.5", "repeatframes")
BEHIND = ("uncompressed", "holitom:retention=0.25", "holitom:retention=0.1", "vcast:retention=0.25")
BEHIND = (*BEHIND, "vcast:retention=0.1", "spread:retention=0.25", "spread:retention=0.1")
ALONE = ("earlytom:retention=0.25", "earlytom:retention=0.1")  # with a selection of its own
FARTHEST = 8.0  # backgrounds are so many pixels wider than the picture


def films(split: str, pan: float) -> Iterator[SyntheticClip]:
    """The clips of the suite, in order; with ``pan``, as a camera sees them that turns in a random direction."""
    for number in count():
        layout, pixels, words = (np.random.Generator(np.random.PCG64(s)) for s in seed_of(split, 0, number).spawn(3))
        scenes = sample_scenes(layout, BLOCK)
        if pan:
            angle = 2 * np.pi * np.random.default_rng(number).random(BLOCK)
            way = pan * np.stack([np.cos(angle), np.sin(angle)], -1)[:, None]
            turned = way * np.linspace(-1.0, 1.0, FRAMES)[None, :, None]
            centre = scenes.centre + (turned - scenes.pan)[:, None]
            scenes = dataclasses.replace(scenes, pan=turned, centre=centre)
        frames, _ = render(scenes, pixels)
        for place in range(BLOCK):
            name = f"{split}-0-{number * BLOCK + place:05d}"
            yield SyntheticClip(name, frames[place], ask(scenes, place, words))


def noisy(clip: SyntheticClip, number: int, sigma: float) -> SyntheticClip:
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


def part_of(text: str) -> tuple[int, int]:
    """``"2/8"`` as (2, 8)."""
    number, total = (int(part) for part in text.split("/"))
    if not 1 <= number <= total:
        raise argparse.ArgumentTypeError(f"{text} is no part: give one of 1/{total} ... {total}/{total}")
    return number, total


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--split", default="test")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--pan", type=float, default=0.0)
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS))
    parser.add_argument("--behind", nargs="*", default=list(BEHIND))
    parser.add_argument("--alone", nargs="*", default=list(ALONE))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--shard", type=part_of, default=(1, 1))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not 0 <= options.pan <= FARTHEST:
        parser.error(f"--pan is at most {FARTHEST:g} pixels, got {options.pan:g}")
    if options.shard != (1, 1) and (options.rows is None or options.json is not None):
        parser.error("--shard needs --rows, and no --json: the table is made without --shard")
    return options


def measure(options: argparse.Namespace, methods: list[Method], settings: dict[str, Any]) -> list[Any]:
    """The rows of this part, and of all parts that are finished in the same folder."""
    number, total = options.shard
    log = Log(None, settings)
    if options.rows is not None:
        name = f"{options.split}-noise-{options.noise:g}-pan-{options.pan:g}"
        log = Log(options.rows / f"{name}-{number}-of-{total}.jsonl", settings)
        for file in sorted(options.rows.glob(f"{name}-*.jsonl")):
            if file != log.path and total == 1:
                log.rows += Log(file, settings).rows
    with Progress() as progress:
        mine = range(number - 1, options.n, total)
        bar = progress.add_task("clips", total=len(mine))
        source = ((at, clip) for at, clip in zip(range(options.n), films(options.split, options.pan), strict=False))
        clips = (noisy(clip, at, options.noise) if options.noise else clip for at, clip in source if at in mine)
        pipeline = load("tiny", "cpu", "auto", None)
        rows = evaluate(pipeline, clips, methods, log, done=lambda _: progress.advance(bar))
    return [row for row in rows if int(row.clip.rpartition("-")[2]) < options.n]  # those of a longer run may be there


def main() -> None:
    """Prints the table."""
    options = arguments()
    methods = pairs(options.designs, options.behind)
    settings = {"split": options.split, "noise": options.noise, "pan": options.pan}
    rows = measure(options, [*methods.values(), *map(parse, options.alone)], settings)
    if options.shard != (1, 1):
        return
    by_method: dict[str, list[Any]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    tasks = [task for task in dict.fromkeys(task for row in rows for task in row.tasks) if task not in LEAKING]
    table: list[dict[str, Any]] = []
    for (design, behind), method in [*methods.items(), *(((text, ""), parse(text)) for text in options.alone)]:
        mine, base = by_method[label(method)], by_method[label(parse(behind or "uncompressed"))]
        mean, gap = paired_bootstrap(mine, base, tasks)
        tower = float(np.mean([row.tower_share for row in mine]))
        entry = {"design": design, "behind": behind, "tower": tower, "mean": list(mean), "gap": list(gap)}
        table.append(entry)
        low, high = 100 * gap.low, 100 * gap.high
        shown = f"{100 * mean.value:5.1f}  {100 * gap.value:+5.1f} [{low:+.1f}, {high:+.1f}]"
        print(f"{design or 'untouched':30s} {behind:24s} tower {100 * tower:5.1f} %  accuracy {shown}")
    if options.json:
        options.json.write_text(json.dumps({"clips": options.n, **settings, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
