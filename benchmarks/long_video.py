"""A film of three hours in the memory of a minute: peak memory, time by stage, and what cutting into windows costs.

    python benchmarks/long_video.py [--frames 1350 2700 5400 10800] [--window 60] [--tokens 8000] [--json FILE]

Films are generated: scenes of 4 to 150 seconds with a still background and moving squares, 5 frames per second, read
at 1. The bundled tiny model encodes every sampled frame (49 tokens each), HoliTom merges window by window to the
budget, and the model answers a question about what is left. Each film runs in a process of its own. Memory is the peak
of that process less what it held once the model was loaded and had answered about a short clip. Runs that the JSON file
already holds with the same settings are not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from holitom import HoliTom
from holitom.cli.loading import TINY
from holitom.long_video import Reading
from holitom.ops import SegmentStream, segment, segment_stream
from holitom.pipeline import Pipeline
from holitom.video import Clip

RATE, SIDE = 5, 112
PAGE, MARK = Path(__file__).parents[1] / "docs" / "long_videos.md", "<!-- table: benchmarks/results/long_video.json"
STREAMS: list[RecordedStream] = []


class RecordedStream(SegmentStream):
    """Remembers the links it was given, from which the global optimum can be computed."""

    def __init__(self, window: int, max_frames: int | None) -> None:
        super().__init__(window, max_frames=max_frames)
        self.links: list[Tensor] = []
        STREAMS.append(self)

    def push(self, links: Tensor) -> Any:
        """As of a stream."""
        self.links.append(links)
        return super().push(links)


@dataclass(frozen=True)
class Recorded(HoliTom):
    """HoliTom with a stream that remembers. The longest segment is any, so that only windows limit it."""

    max_frames: int = 10**6

    def stream(self, window: int) -> SegmentStream:
        """A stream that remembers."""
        return RecordedStream(window, self.max_frames)


def write_film(path: Path, seconds: int) -> None:
    """A film of ``SIDE`` x ``SIDE`` pixels."""
    noise = np.random.default_rng(0)
    left, shapes = 0, np.zeros((0, 4))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "20", "g": "50"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(seconds * RATE):
            if not left:
                left = int(noise.integers(4, 150)) * RATE
                still = np.kron(noise.integers(0, 256, (7, 7, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
                shapes = noise.uniform(-3, 3, (int(noise.integers(0, 5)), 4))
            left -= 1
            frame = still.copy()
            for across, down, x, y in shapes:
                at = [
                    int(abs((start * 20 + speed * number / 2) % 180 - 90)) for start, speed in ((x, across), (y, down))
                ]
                frame[at[0] : at[0] + 22, at[1] : at[1] + 22] = (abs(x) * 80, abs(y) * 80, 128)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())


def resident() -> float:
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def run(film: Path, window: float, tokens: int) -> dict[str, Any]:
    """One film in this process."""
    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(TINY, device="cpu", dtype=torch.float32)
    short = Clip.from_frames(np.zeros((16, SIDE, SIDE, 3), dtype=np.uint8))
    pipeline.ask(short, "how many shapes ?", HoliTom(), window=60, tokens=100, max_new_tokens=2)
    STREAMS.clear()
    loaded, before = resident(), time.perf_counter()
    prefix = pipeline.compress(film, Recorded(), Reading(window, tokens))
    compressed = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = pipeline.answer(prefix, "how many shapes ?", max_new_tokens=8)
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    links, length = torch.cat(STREAMS[0].links), STREAMS[0].window
    best = segment(links).redundant
    fixed = list(segment_stream([links], length, length))
    ours = sum(each.redundant for each in prefix.windows)
    return {
        "frames": prefix.frames,
        "patches": prefix.merge.inputs,
        "tokens": len(prefix.tokens),
        "windows": len(prefix.windows),
        "memory_mib": {
            "model loaded": loaded,
            "beside the model, until compressed": peak - loaded,
            "beside the model, answer included": whole - loaded,
        },
        "seconds": {**prefix.seconds, "LLM prefill": answer.seconds["LLM prefill"], "compressed": compressed},
        "redundant": {
            "global optimum": best,
            "in windows": ours,
            "share": ours / max(1, best),
            "certain": 1 - prefix.at_stake / max(1, best),
            "windows of one length": sum(each.cut.redundant for each in fixed) / max(1, best),
        },
    }


def main() -> None:
    """Prints a table and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[1350, 2700, 5400, 10800])
    parser.add_argument("--window", type=float, default=60.0)
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", action="store_true", help="also write the table into docs/long_videos.md")
    parser.add_argument("--film", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.film:
        sys.stdout.write(json.dumps(run(options.film, options.window, options.tokens)))
        return
    settings = {"window": options.window, "tokens": options.tokens, "torch": torch.__version__, "threads": 1}
    found: dict[str, Any] = {"settings": settings, "runs": {}}
    if options.json and options.json.exists():
        known = json.loads(options.json.read_text())
        found = known if known["settings"] == settings else found
    for frames in options.frames:
        if str(frames) in found["runs"]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            film = Path(folder) / "film.mp4"
            write_film(film, frames)
            call = [sys.executable, __file__, "--film", str(film), "--window", str(options.window)]
            done = subprocess.run(
                [*call, "--tokens", str(options.tokens)], check=True, stdout=subprocess.PIPE, text=True
            )
        found["runs"][str(frames)] = json.loads(done.stdout)
        found["runs"] = dict(sorted(found["runs"].items(), key=lambda item: int(item[0])))
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    for line in table(found):
        print(line)
    if options.page:
        page = PAGE.read_text("utf-8")
        start, end = page.index("\n", page.index(MARK)) + 1, page.index("<!-- end -->")
        PAGE.write_text(page[:start] + "\n".join(table(found)) + "\n" + page[end:], "utf-8")


def table(found: dict[str, Any]) -> list[str]:
    """The runs as a Markdown table, one column each."""
    runs, settings = list(found["runs"].values()), found["settings"]
    rows = [("frames", *(f"{run['frames']:,}" for run in runs))]
    rows.append(("",) + ("---:",) * len(runs))
    rows += [(name, *(f"{run[name]:,}" for run in runs)) for name in ("patches", "tokens", "windows")]
    for group, write in (("memory_mib", "{:,.0f} MiB"), ("seconds", "{:,.1f} s")):
        rows += [(name, *(write.format(run[group][name]) for run in runs)) for name in runs[0][group]]
    for name, key in (("redundant tokens, global optimum", "global optimum"), ("in windows", "in windows")):
        rows.append((name, *(f"{run['redundant'][key]:,}" for run in runs)))
    shares = {"share": "share of the optimum", "certain": "certified", "windows of one length": "windows of one length"}
    rows += [(name, *(f"{run['redundant'][key]:.2%}" for run in runs)) for key, name in shares.items()]
    rows[1] = ("---", *rows[1][1:])
    notes = [f"{run['frames']:,} frames: {run['note']}." for run in runs if "note" in run]
    head = f"Window {settings['window']:g} s, budget {settings['tokens']:,} tokens, 1 frame per second, one thread:"
    return [head, "", *("| " + " | ".join(row) + " |" for row in rows), *([""] if notes else []), *notes]


if __name__ == "__main__":
    main()
