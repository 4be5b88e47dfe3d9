"""Corpora of long videos: each is read in windows, and answered as `holitom ask` answers about it alone."""

from __future__ import annotations

import json

import pytest
from corpus_clips import QUESTIONS, write_corpus
from tiny_checkpoints import build_llava_onevision
from typer.testing import CliRunner

from holitom import HoliTom
from holitom.cli import app
from holitom.pipeline import Pipeline
from holitom.video import open_video

WINDOWS = {"window": 0.5, "tokens": 12, "fps": 8.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0))


def caption(source, out, checkpoint, *more):
    asked = [word for question in QUESTIONS for word in ("--question", question)]
    windows = [word for name, value in WINDOWS.items() for word in (f"--{name}", str(value))]
    options = ["--model", checkpoint, "--out", str(out), "--max-new-tokens", "6", "--method", "holitom:layer=2"]
    return CliRunner().invoke(app, ["caption", str(source), *asked, *windows, *options, *more])


@pytest.mark.parametrize("inner", [2, None])
def test_rows_are_the_answers_about_each_film_alone(checkpoint, tmp_path, inner):
    source, out = write_corpus(tmp_path / "films", 8), tmp_path / "out.jsonl"
    assert caption(source, out, checkpoint, "--method", f"holitom:layer={inner}").exit_code == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == 8 * len(QUESTIONS)
    pipeline, method = Pipeline.from_pretrained(checkpoint, device="cpu"), HoliTom(layer=inner)
    for row in rows:
        if row["path"].endswith(("clip-003.mp4", "clip-007.mp4")):  # damaged, empty
            assert row["error"]
            assert row["answer"] is None
            continue
        alone = pipeline.ask(row["path"], row["question"], method, **WINDOWS, max_new_tokens=6)
        assert row["answer"] == alone.text
        full, entering, _ = alone.summary.visual_tokens
        assert (row["visual_tokens_in"], row["visual_tokens_out"]) == (full, entering)
        assert entering == min(WINDOWS["tokens"], full)


def test_other_windows_are_other_settings(checkpoint, tmp_path):
    source, out = write_corpus(tmp_path / "films", 2), tmp_path / "out.jsonl"
    assert caption(source, out, checkpoint).exit_code == 0
    before = out.read_bytes()
    again = caption(source, out, checkpoint, "--tokens", "13")
    assert again.exit_code != 0
    assert "tokens" in str(again.exception)
    assert out.read_bytes() == before


def test_options_that_do_not_go_together(checkpoint, tmp_path):
    out = tmp_path / "out.jsonl"
    for more, said in (
        (["--retention", "0.1"], "--tokens and --retention both say how much stays"),
        (["--frames", "8"], "--fps and --frames both say how many frames"),
        (["--engine", "vllm"], "--engine transformers alone"),
    ):
        found = caption(write_corpus(tmp_path / "films", 1), out, checkpoint, *more)
        assert found.exit_code == 2
        assert said in " ".join(found.output.split())
    assert not out.exists()


def test_fps_alone_reads_every_video_whole_at_that_rate(checkpoint, tmp_path):
    from holitom.corpus.reading import PromptReader
    from holitom.corpus.sources import Item

    [film] = list(write_corpus(tmp_path / "films", 1).rglob("*.mp4"))[:1]
    reader = PromptReader(str(checkpoint), ("What?",), None, fps=4.0)
    start = reader.read(Item(str(film), str(film))).content.start
    assert start["pixel_values_videos"].shape[1] == len(open_video(film, fps=4.0))
