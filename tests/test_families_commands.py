"""Every family in every command, from a checkpoint on disk; what does not work is refused and in the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import FAMILIES
from family_processors import checkpoint
from typer.testing import CliRunner

from holitom import HoliTom, Pipeline, Uncompressed
from holitom.cli import app
from holitom.cli.models import catalogue
from holitom.evaluation import Log, evaluate
from holitom.evaluation.run import first_word
from holitom.video import Clip
from holitom.video.synthetic import suite

DEFAULT = ("llava_onevision", "qwen3_vl", "internvl", "smolvlm")  # one of each way to encode a video
EACH = [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
METHOD = HoliTom(retention=0.3, layer=None)
CHOSEN = ["--method", "holitom:retention=0.3,layer=none"]
QUESTIONS = ("What?", "Who is it?")


@pytest.fixture(scope="module", params=EACH)
def model(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, checkpoint(request.param, tmp_path_factory.mktemp("model"))


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ask_and_caption_say_the_same_and_count_the_same(model, film, tmp_path):
    _, path = model
    common = ["--model", path, *CHOSEN, "--frames", 8, "--max-new-tokens", 4]
    asked = [json.loads(run("ask", film, question, *common, "--json")) for question in QUESTIONS]
    words = [word for question in QUESTIONS for word in ("--question", question)]
    run("caption", film, *words, "--out", tmp_path / "out.jsonl", *common, "--workers", 0)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    rows.sort(key=lambda row: QUESTIONS.index(row["question"]))
    assert [row["error"] for row in rows] == [None, None]
    assert [row["answer"] for row in rows] == [answer["answer"] for answer in asked]
    for row, answer in zip(rows, asked, strict=True):
        tokens = answer["visual_tokens"]
        assert (row["visual_tokens_in"], row["visual_tokens_out"]) == (tokens["full"], tokens["entering"])
    shared = [row["seconds_decode"] == 0 for row in rows]
    assert sum(shared) == 1, "one row pays for what both share"
    alone, cost = rows[shared.index(False)], asked[shared.index(False)]["cost"]
    assert alone["full_prefill_flops"] == cost["full"]["prefill_flops"]
    assert alone["prefill_flops"] == cost["compressed"]["prefill_flops"]
    assert alone["full_paper_flops"] == cost["full"]["paper_flops"]
    assert alone["paper_flops"] == cost["compressed"]["paper_flops"]
    assert rows[shared.index(True)]["full_paper_flops"] == 0, "it brings no visual tokens"


def test_eval_says_what_asking_each_question_says(model):
    _, path = model
    pipeline, [clip] = Pipeline.from_pretrained(path, device="cpu"), suite("test", 1)
    rows = evaluate(pipeline, [clip], [Uncompressed(), METHOD], Log(None, {}), max_new_tokens=3)
    frames = Clip.from_frames(clip.frames)
    for row, method in zip(rows, [None, METHOD], strict=True):
        said = [pipeline.ask(frames, each.text, method, max_new_tokens=3) for each in clip.questions[:3]]
        assert row.answers[:3] == [first_word(answer.text) for answer in said]
        assert row.visual_tokens[:2] == said[0].summary.visual_tokens[:2]
    assert 0 < rows[1].prefill_flops < rows[1].full_flops == rows[0].prefill_flops


def test_bench_and_show(model, film, tmp_path):
    _, path = model
    short = ["--frames", 4, "--answer-tokens", 2, "--repeats", 1, "--warmup", 0]
    report = json.loads(run("bench", path, *CHOSEN, *short, "--json"))
    assert report["failures"] == {}
    assert len(report["results"]) == 2
    run("show", film, "--model", path, *CHOSEN, "--frames", 8, "--max-new-tokens", 2, "--out", tmp_path / "page.html")
    assert "Prefill FLOPs, causal" in (tmp_path / "page.html").read_text("utf-8")


def test_long_videos_are_read_or_refused_as_the_table_says(model, film):
    name, path = model
    pipeline = Pipeline.from_pretrained(path, device="cpu")
    [listed] = [entry for entry in catalogue() if entry["class"] == type(pipeline.model).__name__]
    if listed["windows"]:
        answer = pipeline.ask(film, "What?", METHOD, window=5, tokens=40, max_new_tokens=2)
        assert answer.summary.visual_tokens[1] == 40
    else:
        with pytest.raises(TypeError, match=r"cannot read a video in windows yet; .* can: use one of them"):
            pipeline.ask(film, "What?", METHOD, tokens=40)
    assert listed["windows"] == (name == "llava_onevision")
