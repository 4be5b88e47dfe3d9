"""A long night in half an hour: a corpus with 15 % hostile videos, three SIGKILLs, and what is left of it.

    python benchmarks/soak.py [--items 2000] [--out benchmarks/results/soak.json]

Two runs over the same 2,000 small videos with the bundled tiny model and two workers: one undisturbed, one that is
killed three times and goes on. One item in seven is hostile: cut off or empty, huge (a small GIF of large frames),
slow (an address whose server trickles), or takes its reader down (it stops while it sends, or dies). What is reported:
whether both outputs are equal, memory over time, temporary files, and processes that outlived
a kill. Needs Linux, for /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from holitom import HoliTom
from holitom.bench.machine import machine
from holitom.cli.loading import TINY
from holitom.corpus import Item, Plan, PromptReader, Scratch, Store, TransformersEngine, list_videos, run
from holitom.corpus.reading import Video
from holitom.pipeline import Pipeline
from holitom.video.remote import FetchLimits
from holitom.video.synthetic.files import write_mp4

QUESTIONS = ("What colour is the square?",)
KINDS = (("cut off", 100), ("empty", 40), ("huge", 80), ("slow", 60), ("stops", 10), ("dies", 10))  # of 2,000
DISTINCT = 60  # films that are drawn; the others are copies
TIMEOUT, FETCH = 8.0, 3.0  # seconds
COLUMNS = ("answer", "error", "warning", "prompt_tokens", "visual_tokens_in", "visual_tokens_out")


@dataclass(frozen=True)
class SoakReader(PromptReader):
    """Reads as ever, but for names on which it stops while it sends, or dies."""

    def load(self) -> None:
        """Also prepares to stop in the middle of a message."""
        from holitom.corpus.channel import SIZE, Channel

        super().load()
        send = Channel.send

        def stopping(channel: Channel, content: Any, seconds: float | None = None) -> None:
            if "stops" in getattr(content, "path", ""):
                channel.line.sendall(SIZE.pack(1) + SIZE.pack(1000) + b"half of it")
                os.kill(os.getpid(), signal.SIGSTOP)
            send(channel, content, seconds)

        Channel.send = stopping  # type: ignore[method-assign]

    def read(self, item: Item) -> Video:
        """Dies over some."""
        if "dies" in item.path:
            os._exit(11)
        return super().read(item)


class Trickle(BaseHTTPRequestHandler):
    """A server that promises a film and sends a byte a second."""

    def do_GET(self) -> None:
        """Answers a request."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with suppress(OSError):
            for _ in range(60):
                self.wfile.write(b"\0")
                self.wfile.flush()
                time.sleep(1)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def write_corpus(folder: Path, count: int, port: int) -> tuple[Path, dict[str, int]]:
    """The videos and a table of them, in an order that is drawn once."""
    dice = np.random.default_rng(0)
    made = []
    for number in range(DISTINCT):
        clip = np.repeat(dice.integers(0, 255, (1, 56, 56, 3), np.uint8), int(dice.integers(2, 9)), 0)
        clip[:, 16:40, 16:40] = dice.integers(0, 255, (len(clip), 24, 24, 3), np.uint8)
        made.append(folder / f"made-{number}.mp4")
        write_mp4(clip, made[-1])
    huge = folder / "huge.gif"
    pages = [Image.new("P", (8000, 8000), number) for number in range(40)]
    pages[0].save(huge, save_all=True, append_images=pages[1:], duration=40)
    kinds = [kind for kind, share in KINDS for _ in range(max(1, share * count // 2000))]
    kinds += ["good"] * (count - len(kinds))
    random.Random(0).shuffle(kinds)
    table = folder / "list.jsonl"
    with table.open("w") as lines:
        for number, kind in enumerate(kinds):
            name = f"{number:04d} {kind}" + (".gif" if kind == "huge" else ".mp4")
            path = str(folder / name)
            if kind == "slow":
                path = f"http://127.0.0.1:{port}/{number:04d}-slow.mp4"
            elif kind == "empty":
                Path(path).touch()
            elif kind == "cut off":
                Path(path).write_bytes(made[number % DISTINCT].read_bytes()[: 40 + number % 400])
            else:
                os.link(huge if kind == "huge" else made[number % DISTINCT], path)
            lines.write(json.dumps({"path": path}) + "\n")
    return table, dict(Counter(kinds))


def work(table: str, out: str) -> None:
    """One run, in a process of its own."""
    plan = Plan(list_videos(table), QUESTIONS, frames=8, workers=2, timeout=TIMEOUT, group=16)
    reader = SoakReader(str(TINY), QUESTIONS, 8, FetchLimits(megabytes=10, seconds=FETCH))
    with Scratch(), Store(out, {"model": "tiny"}) as store:
        engine = TransformersEngine(Pipeline.from_pretrained(TINY, device="cpu"), HoliTom(retention=0.25), 4)
        run(plan, engine, reader, store)
        engine.close()


class Watch(threading.Thread):
    """Samples the memory of a process and its workers, and the files in a folder, every half second."""

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.pid, self.folder, self.over = pid, folder, threading.Event()
        self.model: list[float] = []
        self.workers: list[float] = []
        self.files: list[int] = []

    def run(self) -> None:
        """Until it is over."""
        while not self.over.wait(0.5):
            with suppress(OSError):
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
                tasks = Path(f"/proc/{self.pid}/task").iterdir()
                children += [pid for task in tasks for pid in (task / "children").read_text().split()]
                self.model.append(resident(self.pid))
                self.workers.append(sum(resident(int(pid)) for pid in set(children)))
                self.files.append(files_in(self.folder))


def resident(pid: int) -> float:
    """MiB of memory that a process has; 0 for one that has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def files_in(folder: Path) -> int:
    """Files in a folder and below."""
    return sum(len(names) for _, _, names in os.walk(folder))


def start(table: Path, out: Path, scratch: Path) -> tuple[subprocess.Popen[bytes], Watch]:
    """A run in a session of its own, watched."""
    words = [sys.executable, __file__, "--table", str(table), "--run", str(out)]
    environment = {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    with (scratch.parent / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(words, env=environment, start_new_session=True, stderr=errors)
    watch = Watch(process.pid, scratch)
    watch.start()
    return process, watch


def rows_of(out: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All rows, those that are not in OUT yet included."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    beside = out.with_name(f"{out.name}.run")
    lines = out.read_text("utf-8").splitlines() if out.exists() else []
    batches = [[json.loads(line)] for line in lines]
    if beside.exists():
        batches += [json.loads(line) for line in beside.read_text("utf-8").split("\n")[1:-1]]
    for batch in batches:
        for row in batch:
            found[row["path"], row["question"]] = tuple(row[name] for name in COLUMNS)
    return found


def living(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, leader = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(leader) == session and state != "Z":
                found.append(int(path.name))
    return found


def thirds(values: list[float]) -> list[float]:
    """The median of each third, without the first tenth, in which models are loaded."""
    values = values[len(values) // 10 :]
    third = max(1, len(values) // 3)
    return [round(median(values[at : at + third]), 1) for at in (0, third, len(values) - third)]


def main() -> None:
    """Both runs, and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        work(options.table, options.run)
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    table, kinds = write_corpus(folder, options.items, server.server_port)
    scratch = folder / "scratch"
    scratch.mkdir()
    print(f"{options.items} items: {kinds}", flush=True)

    began = time.monotonic()
    process, watch = start(table, folder / "whole.jsonl", scratch)
    process.wait()
    watch.over.set()
    assert process.returncode == 0, (folder / "errors.txt").read_text()
    whole = rows_of(folder / "whole.jsonl")
    undisturbed = {
        "seconds": round(time.monotonic() - began, 1),
        "rows": len(whole),
        "errors": sum(row[1] is not None for row in whole.values()),
        "model_process_mib_by_thirds": thirds(watch.model),
        "workers_mib_by_thirds": thirds(watch.workers),
        "most_temporary_files": max(watch.files),
        "temporary_files_after": files_in(scratch),
    }
    print("undisturbed:", json.dumps(undisturbed), flush=True)

    out, began, kills = folder / "killed.jsonl", time.monotonic(), []
    peak, files = 0.0, 0
    for number in range(options.kills + 1):
        process, watch = start(table, out, scratch)
        if number < options.kills:
            wanted = (number + 0.7) * options.items / (options.kills + 1)
            while len(rows_of(out)) < wanted and process.poll() is None:
                time.sleep(0.5)
            time.sleep(random.Random(number).uniform(0, 3))
            process.kill()
        process.wait()
        watch.over.set()
        peak, files = max([peak, *watch.model]), max([files, *watch.files])
        if number < options.kills:
            time.sleep(5)
            partial = rows_of(out)
            kills.append({"rows_then": len(partial), "processes_after_5_s": len(living(process.pid))})
            assert partial.items() <= whole.items(), "a row of the killed run differs"
            print("killed:", json.dumps(kills[-1]), flush=True)
    assert process.returncode == 0, (folder / "errors.txt").read_text()
    lines = out.read_text("utf-8").splitlines()
    report = {
        "machine": machine(__import__("torch").device("cpu")),
        "items": options.items,
        "kinds": kinds,
        "workers": 2,
        "timeout_seconds": TIMEOUT,
        "undisturbed": undisturbed,
        "killed": {
            "seconds": round(time.monotonic() - began, 1),
            "kills": kills,
            "rows": len(lines),
            "most_model_process_mib": round(peak, 1),
            "most_temporary_files": files,
            "temporary_files_after": files_in(scratch),
        },
        "equal": rows_of(out) == whole and len(lines) == len(whole) == options.items,
    }
    print(json.dumps(report, indent=1))
    assert report["equal"], "the killed run differs"
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
