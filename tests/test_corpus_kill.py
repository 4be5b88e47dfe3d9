"""Runs that are killed at random moments and go on: no row lost, doubled or half-written, every answer the same."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from corpus_clips import QUESTIONS, answers, command, rows_of, write_corpus
from tiny_checkpoints import build_llava_onevision
from typer.testing import CliRunner

from holitom.cli import app


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0)


def begun(out: Path) -> int:
    """Bytes of finished rows, in OUT or beside it."""
    return sum(path.stat().st_size for path in (out, out.with_name(f"{out.name}.run")) if path.exists())


def killed(words: list[str], out: Path, moment: float) -> None:
    """Starts a run, waits for its first new rows and so many seconds, and kills it with SIGKILL."""
    before = begun(out)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 240
        while begun(out) <= before + 2000 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(moment)
        assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[1]}"
    finally:
        process.kill()
        process.communicate()


def to_the_end(source: Path, out: Path, checkpoint: Path) -> str:
    """The same run, in this process and without workers; what it said."""
    result = CliRunner().invoke(app, [*command(source, out, checkpoint)[2:], "--workers", "0"])
    assert result.exit_code == 0, result.output
    return result.stderr


def survives(folder: Path, checkpoint: Path, clips: int, kills: int, ending: str, longest: float) -> None:
    source = write_corpus(folder / "clips", clips)
    whole, out = folder / f"whole{ending}", folder / f"killed{ending}"
    to_the_end(source, whole, checkpoint)
    moments = random.Random(clips)
    for _ in range(kills):
        killed(command(source, out, checkpoint), out, moments.uniform(0.0, longest))
        partial = answers(rows_of(out))  # whole at every moment
        assert partial.items() <= answers(rows_of(whole)).items()
    assert "rows already" in to_the_end(source, out, checkpoint)
    rows = rows_of(out)
    assert len(rows) == clips * len(QUESTIONS)
    assert answers(rows) == answers(rows_of(whole))
    bad = [row for row in rows if row["error"]]
    assert len(bad) == len(QUESTIONS) * sum(number % 10 in (3, 7) for number in range(clips))
    assert len({row["answer"] for row in rows if not row["error"]}) > 3, "a model that says one thing shows nothing"


@pytest.mark.slow
def test_killed_once(tmp_path, checkpoint):
    survives(tmp_path, checkpoint, clips=40, kills=1, ending=".parquet", longest=0.1)


@pytest.mark.slow
def test_three_hundred_clips_killed_three_times(tmp_path, checkpoint):
    survives(tmp_path, checkpoint, clips=300, kills=3, ending=".jsonl", longest=2.0)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_finishes_the_batch_in_flight(tmp_path, checkpoint, workers):
    source, out = write_corpus(tmp_path / "clips", 40), tmp_path / "out.jsonl"
    words = [*command(source, out, checkpoint), "--workers", str(workers)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while begun(out) <= 2000 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 130, told
    assert "the same command goes on" in told
    saved = answers(rows_of(out))
    assert 0 < len(saved) < 80
    to_the_end(source, out, checkpoint)
    after = answers(rows_of(out))
    assert len(after) == 80
    assert saved.items() <= after.items()
