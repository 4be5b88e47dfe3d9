"""`holitom recommend` answers from committed runs, and says what none of them measured."""

from __future__ import annotations

import json
import re
import runpy
import shlex

import pytest
from test_docs import CHECKPOINT, ROOT, SAMPLE
from test_docs_commands import parse
from typer.testing import CliRunner

from holitom import Spread
from holitom.cli import app
from holitom.cli.recommend import COPY, MEASURED
from holitom.methods.registry import parse as method_of
from holitom.recommendation import FILE, Recommendation

PAGE = (ROOT / "docs" / "which_method.md").read_text("utf-8")
BED = json.loads(MEASURED.read_text("utf-8"))["accuracy"]


def ask(*words: object) -> dict:
    result = CliRunner().invoke(app, ["recommend", "--json", *map(str, words)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_figures_are_those_of_the_committed_runs():
    script = runpy.run_path(str(ROOT / "docs" / "measured.py"), run_name="measured")
    assert json.loads(json.dumps(script["measured"]())) == json.loads(MEASURED.read_text("utf-8")), (
        "run `python docs/measured.py`"
    )


@pytest.mark.parametrize("place", COPY)
def test_no_setting_that_works_there_does_better(place):
    """Within the loss that is allowed no other one keeps fewer tokens."""
    found = ask("--place", place, "--loss", 2.5)
    rows = {row["method"]: row for row in BED["methods"] if place in row["places"]}
    mine = rows[found["method"]]
    assert -100 * mine["difference"][1] <= 2.5
    for row in rows.values():
        allowed = -100 * row["difference"][1] <= 2.5 and (place != "vllm" or row["positions"] == "compact")
        assert not allowed or row["tokens"] > mine["tokens"] - 0.01, row["method"]


@pytest.mark.parametrize("place", COPY)
def test_the_setting_can_be_copied_and_runs_are_named(place):
    found = ask("--place", place, "--model", CHECKPOINT)
    parse(shlex.split(found["copy"])[1:])
    assert CHECKPOINT in found["copy"]
    method_of(found["method"])
    for fact in found["measured"]:
        assert (ROOT / fact["run"]).is_file(), fact


def test_nothing_within_the_loss_is_said():
    found = ask("--place", "vllm", "--loss", 0)
    assert "none is within 0 %" in found["why"]


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("--model", CHECKPOINT, "--frames", 77), "77 frames"),
        (("--model", CHECKPOINT, "--batch", 3), "3 videos in a batch"),
        (("--model", "Qwen/Qwen3-VL-8B-Instruct"), "the shape of Qwen"),
        (("--place", "vllm"), "inside vLLM"),
    ],
)
def test_what_was_not_measured_gets_no_figure(words, missing):
    found = ask(*words)
    assert any("the time of" in each and missing in each for each in found["not_measured"])
    assert not any("first token" in fact["figure"] for fact in found["measured"])


def test_a_measured_shape_gets_its_time():
    found = ask("--model", CHECKPOINT, "--frames", 32, "--batch", 1)
    times = [fact for fact in found["measured"] if "first token" in fact["figure"]]
    assert times
    assert all("llava-onevision-7b (random weights), 32 frames, batch 1" in fact["of"] for fact in times)
    assert not any("the time of" in each for each in found["not_measured"])


def test_a_model_is_known_by_its_config(tmp_path):
    shape = {"hidden_size": 3584, "num_hidden_layers": 28}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava_onevision", "text_config": shape}))
    assert any("first token" in fact["figure"] for fact in ask("--model", tmp_path)["measured"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "text_config": shape}))
    assert not any("first token" in fact["figure"] for fact in ask("--model", tmp_path)["measured"])


def test_vllm_places_tokens_as_the_family_does_there(tmp_path):
    """With rotary positions of one axis it counts them on, so a setting measured at kept places says nothing."""
    positions = {row["method"]: row["positions"] for row in BED["methods"]}
    for name, kept in (("VideoLlama3ForConditionalGeneration", False), ("Qwen2VLForConditionalGeneration", True)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "any", "architectures": [name]}))
        found = ask("--model", tmp_path, "--place", "vllm")
        assert (positions[found["method"]] == "original") == kept


def test_what_vllm_does_not_serve_gets_no_setting(tmp_path):
    name = "InternVLForConditionalGeneration"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl", "architectures": [name]}))
    result = CliRunner().invoke(app, ["recommend", "--model", str(tmp_path), "--place", "vllm"])
    assert isinstance(result.exception, ValueError)
    assert "does not count video tokens" in str(result.exception)


def test_the_checkpoints_own_words_come_first(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    Recommendation(Spread(retention=0.3), "ten clips").write(tmp_path)
    assert (tmp_path / FILE).is_file()
    found = ask("--model", tmp_path)
    assert found["method"] == "spread:retention=0.3"
    assert found["measured"][0]["figure"] == "ten clips"
    assert not any("accuracy" in each for each in found["not_measured"])


def test_an_unknown_place_is_refused():
    result = CliRunner().invoke(app, ["recommend", "--place", "moon"])
    assert result.exit_code == 2
    assert "'moon' is none of transformers" in " ".join(result.output.split())


def test_the_page_shows_what_it_says():
    samples = SAMPLE.findall(PAGE)
    assert {"--frames", "vllm"} <= {word for command, _ in samples for word in command.split()}
    for command, shown in samples:
        assert CliRunner().invoke(app, shlex.split(command)).stdout == shown, "run `python docs/refresh.py recommend`"


def test_the_pages_other_accuracies_are_those_of_the_testbed():
    text = SAMPLE.sub("", PAGE)
    told = {float(figure) for figure in re.findall(r"(?<![\d.])([5-9]\d\.\d)(?= %|,)", text)}
    measured = {round(100 * row["accuracy"][0], 1) for row in BED["methods"]}
    assert len(told) > 8
    assert told <= measured
