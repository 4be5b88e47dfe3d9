"""A folder of small clips, some of which cannot be read, and a run of ``holitom caption`` over it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from holitom.video.synthetic.files import write_mp4

TESTS = Path(__file__).parent
QUESTIONS = ("What happens?", "Is there a square?")


def write_corpus(folder: Path, count: int, seed: int = 0) -> Path:
    """``count`` files: one in ten corrupt, one in ten empty, one in ten of a single frame, the others of 2 to 9."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"clip-{number:03d}.mp4"
        kind = number % 10
        frames = 1 if kind == 5 else int(random.integers(2, 10))
        clip = np.repeat(random.integers(0, 255, (1, 56, 56, 3), np.uint8), frames, 0)
        clip[:, 16:40, 16:40] = random.integers(0, 255, (frames, 24, 24, 3), np.uint8)
        write_mp4(clip, path)
        if kind == 3:
            path.write_bytes(path.read_bytes()[: 40 + number % 200])
        if kind == 7:
            path.write_bytes(b"")
    return folder


def command(source: Path, out: Path, model: Path, *more: object) -> list[str]:
    """The command in a process of its own."""
    asked = [word for question in QUESTIONS for word in ("--question", question)]
    options = ["--model", model, "--frames", 8, "--max-new-tokens", 6, "--retention", 0.3, "--group", 8, "--workers", 2]
    words = ["caption", source, "--out", out, *asked, *options, *more]
    return [sys.executable, str(TESTS / "launch.py"), *map(str, words)]


def finished(source: Path, out: Path, model: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """A run to its end."""
    return subprocess.run(command(source, out, model, *more), capture_output=True, text=True, timeout=540, check=False)


def rows_of(out: Path) -> list[dict]:
    """All rows of an output, as it lies there."""
    if not out.exists():
        return []
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    import pyarrow.parquet as pq

    return pq.read_table(out).to_pylist()


def answers(rows: list[dict]) -> dict[tuple[str, str], tuple]:
    """What must be the same in every run, by path and question; fails where a key comes twice."""
    columns = ("answer", "error", "warning", "prompt_tokens", "visual_tokens_in", "visual_tokens_out")
    found = {(Path(row["path"]).name, row["question"]): tuple(row[name] for name in columns) for row in rows}
    assert len(found) == len(rows), "a row comes twice"
    return found
