"""The tables of docs/testbed.md that `holitom eval` does not print, each part a run that can be stopped and continued.

    python benchmarks/testbed.py PART [-n CLIPS] [--rows FOLDER] [--shard I/N] [--json FILE]

all        every method that decides before the LLM or inside it, at 25, 15, 10 and 5 %, in both position modes
test       Spread, V-CAST, HoliTom and the controls at 10 and 5 %, in both position modes, on the test split
fresh      the same claims on clips of another seed
robust     decisions made on features with a common mean of 20 times their norm, and on features of norm 1 (validation)
auto       which share of the links HoliTom takes for static (validation)
modifiers  sink=, mass= and budgets by content on methods that they compose with (validation)
inner      HoliTom's stage inside the LLM beside random dropping and random merging at the same layer (validation)
pixels     budgets that follow from pixel differences, beside the same number of tokens for all clips (validation)

Settings are chosen on the validation split; the parts "test" and "fresh" are for reporting. Differences are taken on
the same clips, against the first method of a part. --shard 1/8 ... 8/8 in processes of their own do a part of the clips
each; afterwards the same command without --shard prints the table of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from testbed_tower import part_of

from holitom import HoliTom, Merge, VideoTokens
from holitom.cli.loading import load
from holitom.evaluation import LEAKING, Log, accuracy_table, evaluate, label, paired_bootstrap
from holitom.methods import DyCoke, Method, RandomInner, Spread, Uncompressed, method_class, names, parse
from holitom.methods.holitom import WIDTH
from holitom.ops.content import new_tokens
from holitom.ops.spread import directions, most_alike, sketch
from holitom.video.synthetic import SyntheticClip, suite


@dataclass(frozen=True)
class OtherTower(Method):
    """A method that decides on changed features, as another tower might give them; what it merges are the true ones.

    Args:
        inner: the method.
        change: ``"mean"``: plus one vector of 20 times their mean norm; ``"unit"``: divided by their norms.
    """

    name: ClassVar[str] = "other tower"

    inner: Method = dataclasses.field(default_factory=Spread)
    change: Literal["mean", "unit"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "needs", self.inner.needs)
        object.__setattr__(self, "positions", self.inner.positions)

    def merge_video(self, video: VideoTokens) -> Merge:
        """The inner method's map of the changed features."""
        norms = video.features.norm(dim=-1, keepdim=True)
        features = video.features / norms
        if self.change == "mean":
            common = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
            features = video.features + 20 * norms.mean() * common / common.norm()
        return self.inner.merge_video(dataclasses.replace(video, features=features))


@dataclass(frozen=True)
class StaticShare(HoliTom):
    """HoliTom with another share of its links taken for static.

    Args:
        share: in (0, 1).
    """

    share: float = 0.4

    def links(self, features: torch.Tensor, bonus: torch.Tensor | None = None) -> torch.Tensor:
        """The links with the largest cosines."""
        return most_alike(directions(sketch(features, WIDTH))[0], self.share, bonus)


REPORTED = [
    "vcast:retention=0.1",
    "vcast:retention=0.1,positions=original",
    "spread",
    "spread:positions=compact",
    "holitom:similarity=auto,layer=none",
    "holitom:similarity=auto,layer=none,positions=original",
    "vcast:retention=0.05",
    "vcast:retention=0.05,positions=original",
    "spread:retention=0.05",
    "spread:retention=0.05,positions=compact",
]
GRID = 7  # rows and columns of the bundled model's tokens
CHANGES_AND_CAPS = [(0.3, 0.25), (1.0, 0.25), (1.0, 0.15)]
PAIRS = [
    ("spread", "vcast:positions=original,retention=0.1"),
    ("spread:positions=compact", "vcast:retention=0.1"),
    ("spread:retention=0.05", "vcast:positions=original,retention=0.05"),
    ("spread:positions=compact,retention=0.05", "vcast:retention=0.05"),
]


def robust() -> dict[str, Method]:
    """Each method as it is and on changed features."""
    found: dict[str, Method] = {}
    for text in ("spread", "vcast:retention=0.1", "holitom:similarity=auto,layer=none", "holitom:layer=none"):
        method = parse(text)
        found |= {text: method, f"{text}, common mean": OtherTower(method, "mean")}
        found[f"{text}, unit norm"] = OtherTower(method, "unit")
    return found


def inner() -> dict[str, Method]:
    """What halves the tokens at a layer, after the same stage before the LLM."""
    found: dict[str, Method] = {"no stage inside": Spread(retention=0.25)}
    for layer in (1, 2, 3, 4):
        before = Spread(retention=0.25)
        found[f"layer {layer}: HoliTom"] = before | HoliTom(layer=layer)
        found[f"layer {layer}: random, dropped"] = before | RandomInner(layer)
        found[f"layer {layer}: random, merged"] = before | RandomInner(layer, merge=True)
    return found


def modifiers() -> dict[str, Method]:
    """Each method as it is and with each modifier; and budgets by content beside exact ones."""
    found = []
    for text in ("holitom:layer=none,similarity=auto", "visionzip:retention=0.1", "fastvid:retention=0.1"):
        found += [text, f"{text},sink=0.5", f"{text},sink=1.0", f"{text},mass=true", f"{text},sink=1.0,mass=true"]
    found += ["holitom:layer=none", "holitom:layer=none,sink=1.0", "spread", "spread:mass=true"]
    for text in ("holitom:layer=none,similarity=auto", "evs:", "spread:"):
        joined = text if text.endswith(":") else f"{text},"
        found += [f"{joined}retention={share},exact=true" for share in (0.1, 0.25)]
        found += [f"{joined}retention=0.1,change=0.1"]
        found += [f"{joined}retention=0.25,change={change}" for change in (0.03, 0.1, 0.3)]
    return {label(parse(text)): parse(text) for text in found}


def by_pixels(clip: SyntheticClip, change: float) -> int:
    """How many of a clip's patches are new: by their pixels further than ``change`` from the latest new one there."""
    squares = torch.from_numpy(clip.frames).float().unflatten(2, (GRID, -1)).unflatten(1, (GRID, -1))
    return int(new_tokens(squares.transpose(2, 3).flatten(3).flatten(1, 2), change).sum())


def pixels(clips: list[SyntheticClip]) -> list[dict[str, Method]]:
    """For each clip the methods: with as many tokens as its pixels say, and with the mean over all clips."""
    found: list[dict[str, Method]] = [{} for _ in clips]
    for change, cap in CHANGES_AND_CAPS:
        shares = [min(by_pixels(clip, change) / (len(clip.frames) * GRID**2), cap) for clip in clips]
        for inner in ("spread:", "evs:exact=true,", "holitom:layer=none,similarity=auto,exact=true,"):
            for own, share in zip(found, shares, strict=True):
                name = f"{inner}retention={cap}, pixels {change}"
                own[name] = parse(f"{inner}retention={share}")
                own[f"{name}, mean"] = parse(f"{inner}retention={sum(shares) / len(shares)}")
    return found


def unmodified(method: Method) -> Method:
    """A method without modifiers, with the exact count of its retention in place of a budget by content."""
    without: dict[str, Any] = {"sink": 0.0, "mass": False}
    if getattr(method, "change", None) is not None:
        without |= {"change": None, "exact": True}
    fields = {field.name for field in dataclasses.fields(method)}
    return dataclasses.replace(method, **{name: value for name, value in without.items() if name in fields})


def everything() -> dict[str, Method]:
    """Every method of the registry that takes a retention, in both position modes, and those that take none."""
    found: dict[str, Method] = {"uncompressed": Uncompressed()}
    for name in names():
        cls = method_class(name)
        settings = {field.name for field in dataclasses.fields(cls)}
        if cls.stages == ("tower",) or cls is Uncompressed:
            continue
        shares = (0.25, 0.15, 0.1, 0.05) if "retention" in settings else (None,)
        for share, positions in itertools.product(shares, ("compact", "original")):
            words = [f"positions={positions}"] if "before" in cls.stages else []
            words += [] if share is None else [f"retention={share}"]
            words += ["exact=true"] if cls is DyCoke and share and share < 0.25 else []
            method = parse(f"{name}:{','.join(words)}" if words else name)
            found[label(method)] = method
    return found | {label(RandomInner(merge=True)): RandomInner(merge=True)}


def part(name: str) -> tuple[str, int, int, dict[str, Method]]:
    """Split, seed, clips and methods of a part."""
    if name == "test":
        controls = [f"{kind}:retention={share}" for share in (0.1, 0.05) for kind in ("randomdrop", "uniformframes")]
        controls += ["cellsample", "cellmean"]
        return "test", 0, 200, {label(parse(text)): parse(text) for text in REPORTED + controls}
    if name == "all":
        return "test", 0, 100, everything()
    if name == "fresh":
        return "test", 1, 200, {label(parse(text)): parse(text) for text in REPORTED if "holitom" not in text}
    if name == "robust":
        return "val", 0, 100, robust()
    if name == "modifiers":
        return "val", 0, 100, modifiers()
    if name == "pixels":
        return "val", 0, 100, {}  # each clip has its own
    if name == "inner":
        return "val", 0, 100, inner()
    shares = (0.2, 0.4, 0.6, 0.8)
    return "val", 0, 60, {f"static share {x}": StaticShare(layer=None, similarity="auto", share=x) for x in shares}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["all", "test", "fresh", "robust", "auto", "modifiers", "inner", "pixels"])
    parser.add_argument("-n", type=int)
    parser.add_argument("--rows", type=Path, help="folder; a run found there is continued")
    parser.add_argument("--shard", type=part_of, default=(1, 1))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    number, total = options.shard
    if total > 1 and (options.rows is None or options.json is not None):
        parser.error("--shard needs --rows, and no --json: the table is made without --shard")
    split, seed, clips, methods = part(options.part)
    clips = options.n or clips
    called = {method: name for name, method in methods.items()}
    settings = {"model": "tiny", "split": split, "seed": seed, "dtype": "auto"}
    shard = "" if total == 1 else f"-{number}-of-{total}"
    log = Log(options.rows / f"{options.part}{shard}.jsonl" if options.rows else None, settings)
    if options.rows and total == 1:
        log.rows += [row for file in options.rows.glob(f"{options.part}-*.jsonl") for row in Log(file, settings).rows]
    films = suite(split, clips, seed)[number - 1 :: total]
    pipeline = load("tiny", "cpu", "auto", None)
    if options.part == "pixels":
        of_each = pixels(suite(split, clips, seed))[number - 1 :: total]
        methods = of_each[0]
        for film, own in zip(films, of_each, strict=True):
            for name, method in own.items():
                evaluate(pipeline, [film], [method], log, name=lambda _, name=name: name)
    else:
        evaluate(pipeline, films, list(methods.values()), log, name=called.__getitem__)
    if total > 1:
        return
    known = {film.name for film in films}
    rows = [row for row in log.rows if row.clip in known and row.method in methods]
    first = next(iter(methods))
    table: dict[str, Any] = accuracy_table(rows, first)
    table = {name: table[name] for name in methods if name in table}  # rows of a continued run may have another order
    for name, entry in table.items():
        (mean, low, high), gap = (100 * value for value in entry["mean"]), [100 * x for x in entry["difference"]]
        print(f"{name:60s} {mean:5.1f} [{low:.1f}, {high:.1f}]  {gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]")
    tasks = [task for task in table[first]["tasks"] if task not in LEAKING]
    pairs = {}
    own = [(name, label(unmodified(method))) for name, method in methods.items()] if options.part == "modifiers" else []
    own += [(name, f"{name}, mean") for name in methods if f"{name}, mean" in methods]
    for ours, theirs in PAIRS + [pair for pair in own if pair[0] != pair[1]]:
        if {ours, theirs} <= table.keys():
            parts = ([row for row in rows if row.method == name] for name in (ours, theirs))
            pairs[f"{ours} - {theirs}"] = list(paired_bootstrap(*parts, tasks)[1])
            gap = [100 * x for x in pairs[f"{ours} - {theirs}"]]
            print(f"{ours} against {theirs}: {gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]")
    if options.json:
        report = {**settings, "clips": clips, "against": first, "pairs": pairs, "methods": table}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
