"""What `holitom caption` gains: two decode workers against a plain loop, and further questions against the first.

    python benchmarks/corpus.py [--clips 48] [--rounds 3] [--questions 8] [--out benchmarks/results/corpus.json]

Both sides answer the same questions about the same files with the bundled tiny model, in turns, A B A B, each time in a
process of its own with the environment of its command. The plain loop is what `holitom ask` does for each file, without
loading the model each time; the same loop in a shell, one command for each file, is timed beside it. Rates count from
the first finished row to the last, so that the start of worker processes, once in a run, is not in them; it is printed
beside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decode import write_film

from holitom import HoliTom
from holitom.bench.machine import machine
from holitom.cli.loading import TINY
from holitom.cli.threads import SPINS
from holitom.corpus import Item, Plan, PromptReader, Store, TransformersEngine, list_videos, run
from holitom.corpus.reading import Video, attempt
from holitom.pipeline import Pipeline
from holitom.video.synthetic.files import write_clips

ASKED = ("What colour is the square?",)
MORE = (
    "What colour is the square?",
    "How many objects are there?",
    "Which shape is purple?",
    "Does the square move?",
    "What colour is the circle?",
    "Which object moves?",
    "Is there a ring?",
    "What happens in the video?",
)
METHOD = HoliTom(retention=0.25)
PLAIN, WORKERS = "plain loop", "two workers"


class Marks:
    """When rows were finished."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.at: list[tuple[float, int]] = []

    def note(self, rows: int) -> None:
        """So many rows are finished now."""
        self.at.append((time.perf_counter(), rows))

    def result(self) -> dict[str, float]:
        """Rows per second after the first ones, and the seconds until these."""
        (first, few), (last, all_) = self.at[0], self.at[-1]
        return {"rows_per_second": (all_ - few) / (last - first), "seconds_to_the_first": first - self.began}


def plain(pipeline: Pipeline, items: list[Item]) -> dict[str, float]:
    """The loop of `holitom ask`."""
    marks = Marks()
    for number, item in enumerate(items, 1):
        pipeline.ask(item.address, ASKED[0], METHOD, max_new_tokens=4)
        marks.note(number)
    return marks.result()


def corpus(pipeline: Pipeline, items: list[Item], workers: int, folder: Path) -> dict[str, float]:
    """The same through `holitom caption`'s run, written to disk."""
    plan = Plan(items, ASKED, workers=workers)
    engine = TransformersEngine(pipeline, METHOD, max_new_tokens=4)
    marks = Marks()
    with Store(folder / "out.parquet", {}, restart=True) as store:
        run(plan, engine, PromptReader(str(TINY), ASKED, None), store, done=lambda: marks.note(len(store)))
    engine.close()
    return marks.result()


def side(name: str, folder: Path, device: str) -> dict[str, float]:
    """One side over the items in ``folder``, in this process."""
    pipeline = Pipeline.from_pretrained(TINY, device=device, dtype=torch.float32)
    items = [Item(**item) for item in json.loads((folder / "items.json").read_text("utf-8"))]
    return plain(pipeline, items) if name == PLAIN else corpus(pipeline, items, 2, folder)


def rates(items: list[Item], rounds: int, folder: Path, device: str) -> dict[str, Any]:
    """Both sides in turns; medians, and the ratio of each round."""
    (folder / "items.json").write_text(json.dumps([asdict(item) for item in items]), "utf-8")
    environments = {PLAIN: os.environ, WORKERS: {"GOMP_SPINCOUNT": SPINS, **os.environ}}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in environments}
    for _ in range(rounds):
        for name, environment in environments.items():
            words = [sys.executable, __file__, "--side", name, "--folder", str(folder), "--device", device]
            told = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(told.splitlines()[-1]))
    speeds = {name: [each["rows_per_second"] for each in runs] for name, runs in found.items()}
    ratios = [two / one for one, two in zip(speeds[PLAIN], speeds[WORKERS], strict=True)]
    return {
        "rows_per_second": {name: median(values) for name, values in speeds.items()},
        "ratio": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
        "seconds_until_the_first_rows": median(each["seconds_to_the_first"] for each in found[WORKERS]),
    }


def commands(items: list[Item], rounds: int) -> dict[str, Any]:
    """Rows per second of the loop in a shell: `holitom ask` anew for each file, the model loaded each time."""
    seconds = []
    for item in items[:rounds]:
        words = [sys.executable, "-m", "holitom", "ask", item.address, ASKED[0], "--retention", "0.25"]
        began = time.perf_counter()
        subprocess.run([*words, "--max-new-tokens", "4", "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return {"files": len(seconds), "rows_per_second": 1 / median(seconds)}


def further(pipeline: Pipeline, item: Item, count: int, rounds: int, method: Any) -> dict[str, float]:
    """Seconds of one question, and of each further one, about one file; read, encoded and answered in this process.

    Of processor time, which others on the machine change little.
    """

    def seconds(number: int, together: bool) -> float:
        asked = MORE[:number]
        reader = PromptReader(str(TINY), asked, None)
        began = time.process_time()
        video = attempt(reader, item)
        assert isinstance(video, Video), video
        encoded = engine.encode(video)
        rows = [(encoded, which) for which in range(number)]
        for batch in [rows] if together else [[row] for row in rows]:
            engine.answer(batch, [False] * len(batch))
        return time.process_time() - began

    engine = TransformersEngine(pipeline, method, max_new_tokens=4)
    found: dict[str, list[float]] = {"first": [], "in one batch": [], "one by one": []}
    for round_ in range(rounds + 1):
        first = seconds(1, True)
        batch, single = ((seconds(count, together) - first) / (count - 1) for together in (True, False))
        if round_:
            for name, value in zip(found, (first, batch, single), strict=True):
                found[name].append(value)
    engine.close()
    middle = {name: median(values) for name, values in found.items()}
    return {
        "seconds_of_the_first": middle["first"],
        "further_over_first_in_one_batch": median(
            part / whole for part, whole in zip(found["in one batch"], found["first"], strict=True)
        ),
        "further_over_first_one_by_one": median(
            part / whole for part, whole in zip(found["one by one"], found["first"], strict=True)
        ),
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=8, help="2 to 8")
    parser.add_argument("--length", type=int, default=600, help="frames of a film")
    parser.add_argument("--part", choices=("questions", "rates", "commands", "all"), default="all")
    parser.add_argument("--out", type=Path, help="what it holds of the other part stays")
    parser.add_argument("--device", default="cpu", help="of the model")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options.folder, options.device)))
        return
    device = torch.device(options.device)
    pipeline = Pipeline.from_pretrained(TINY, device=device, dtype=torch.float32)
    report: dict[str, Any] = {"machine": machine(device), "model": "tiny", "method": METHOD.settings()}
    if options.out is not None and options.out.exists():
        report = json.loads(options.out.read_text("utf-8"))  # parts that were measured before stay
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "clips", options.clips)
        clips = list_videos(str(folder / "clips"))
        measured: dict[str, Any] = {"rounds": options.rounds, "clips": options.clips, "load_before": os.getloadavg()[0]}
        if options.part in ("questions", "all"):
            for key, method in (("inner stage", METHOD), ("before the LLM alone", HoliTom(retention=0.25, layer=None))):
                measured[key] = further(pipeline, clips[0], options.questions, options.rounds, method)
            report["further questions"] = {**measured, "questions": options.questions}
        write_film(folder / "film.mp4", options.length, 360, 640, 250)
        films = [Item(f"film-{number}", str(folder / "film.mp4")) for number in range(options.clips)]
        kinds = (("synthetic clips", clips), ("films", films))
        if options.part in ("commands", "all"):
            report["commands"] = {key: commands(items, options.rounds) for key, items in kinds}
            report["commands"]["machine"] = machine(device)
        if options.part in ("rates", "all"):
            measured = {"rounds": options.rounds, "clips": options.clips, "machine": machine(device)}
            for key, items in kinds:
                measured[key] = rates(items, options.rounds, folder, options.device)
            report["rates"] = {**measured, "film": {"frames": options.length, "height": 360, "width": 640}}
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
