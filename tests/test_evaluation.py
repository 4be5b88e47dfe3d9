"""The evaluation: the real path, resumable, and statistics that can be checked by hand."""

from __future__ import annotations

import fcntl
import json
import os

import numpy as np
import pytest
import torch
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom
from holitom.cli import main
from holitom.evaluation import LEAKING, Log, Row, accuracy_table, evaluate, label, paired_bootstrap
from holitom.evaluation.run import UNCOMPRESSED, first_word
from holitom.methods.baselines import RandomDrop
from holitom.methods.dycoke import DyCoke
from holitom.pipeline import Pipeline
from holitom.resume import whole_file, write_json
from holitom.video.chat import user_turn
from holitom.video.clip import Clip
from holitom.video.synthetic import suite

METHODS = [UNCOMPRESSED, HoliTom(retention=0.2), RandomDrop(retention=0.2)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = build_llava_onevision(tmp_path_factory.mktemp("model") / "tiny", sharpen=20.0)
    return Pipeline.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def clips():
    return suite("test", 2)


def test_one_encoding_for_all_gives_what_asking_each_question_gives(pipeline, clips):
    rows = evaluate(pipeline, clips[:1], METHODS, Log(None, {}), max_new_tokens=3)
    frames = Clip.from_frames(clips[0].frames)
    for row, method in zip(rows, METHODS, strict=True):
        for question, answer in zip(clips[0].questions, row.answers, strict=True):
            inputs = pipeline.preprocessor.batch([[user_turn(question.text, frames)]])
            with method(pipeline.model) as session, torch.no_grad():
                ids = pipeline.model.generate(**inputs, max_new_tokens=3, do_sample=False)
            text = pipeline.preprocessor.tokenizer.decode(
                ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            assert first_word(text) == answer
        assert row.visual_tokens[:2] == [float(count) for count in session.summary().visual_tokens[:2]]


def test_a_killed_run_continues_and_gives_the_same_rows(pipeline, clips, tmp_path):
    whole = evaluate(pipeline, clips, METHODS, Log(tmp_path / "whole.jsonl", {"seed": 0}), max_new_tokens=3)
    torn = tmp_path / "torn.jsonl"
    data = (tmp_path / "whole.jsonl").read_bytes()
    for length in (10, len(data) // 3, len(data) - 1):
        torn.write_bytes(data[:length])
        again = evaluate(pipeline, clips, METHODS, Log(torn, {"seed": 0}), max_new_tokens=3)
        assert again == whole
        assert torn.read_bytes() == data


def test_a_method_that_refuses_its_budget_costs_nothing_else(pipeline, clips):
    told = {}
    hopeless = DyCoke(retention=0.1)
    rows = evaluate(
        pipeline,
        clips,
        [UNCOMPRESSED, hopeless, METHODS[1]],
        Log(None, {}),
        refused=lambda m, e: told.update({m: str(e)}),
    )
    assert {row.method for row in rows} == {"uncompressed", label(METHODS[1])}
    assert len(rows) == 2 * len(clips)
    assert "cannot come down to retention=0.1" in told[hopeless]
    with pytest.raises(ValueError, match="cannot come down"):
        evaluate(pipeline, clips, [hopeless], Log(None, {}))


def test_a_file_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "notes").write_text("no row\nnor this")
    with pytest.raises(json.JSONDecodeError):
        Log(tmp_path / "notes", {})
    assert (tmp_path / "notes").read_text() == "no row\nnor this"


def test_a_file_is_put_in_place_whole_and_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Others are refused on Windows."""
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE))
    write_json(tmp_path / "here.json", {"a": 1})
    with pytest.raises(TypeError), whole_file(tmp_path / "here.json") as part:
        part.write_text(None)  # type: ignore[arg-type]
    assert synced == [os.O_RDWR]
    assert [(path.name, json.loads(path.read_text())) for path in tmp_path.iterdir()] == [("here.json", {"a": 1})]


def test_other_settings_are_refused_with_the_difference(tmp_path):
    Log(tmp_path / "rows.jsonl", {"seed": 0, "model": "tiny"})
    with pytest.raises(ValueError, match=r"other settings \(seed was 0 and is now 1\): give another --out"):
        Log(tmp_path / "rows.jsonl", {"seed": 1, "model": "tiny"})


def row(clip, method, **right):
    tasks = [task for task, answers in right.items() for _ in answers]
    flat = [bool(answer) for answers in right.values() for answer in answers]
    return Row(clip, method, tasks, ["x"] * len(flat), flat, [100, 10, 8], 1.0, 10.0, paper_share=0.07)


def test_the_table_can_be_checked_by_hand():
    rows = [
        row("a", "uncompressed", colour=[1, 1], order=[1], count=[1]),
        row("b", "uncompressed", colour=[1], order=[0]),
        row("a", "m", colour=[1, 0], order=[1], count=[0]),
        row("b", "m", colour=[0], order=[0]),
    ]
    assert LEAKING == ("count", "scenes")
    table = accuracy_table(rows, "uncompressed")
    assert table["uncompressed"]["tasks"] == {"colour": 1.0, "order": 0.5, "count": 1.0}
    assert accuracy_table(rows, "uncompressed", ["count"])["m"]["mean"][0] == 0.0
    assert table["uncompressed"]["mean"][0] == 0.75
    assert table["m"]["kinds"] == {"content": pytest.approx(1 / 3), "time": 0.5}
    assert table["m"]["tasks"] == {"colour": pytest.approx(1 / 3), "order": 0.5, "count": 0.0}
    assert table["m"]["difference"][0] == pytest.approx(5 / 12 - 0.75)
    assert (table["m"]["tokens_entering"], table["m"]["tokens_mean"]) == (0.1, 0.08)
    assert (table["m"]["prefill_flops"], table["m"]["paper_flops"]) == (0.1, pytest.approx(0.07))
    assert table["m"]["tower_flops"] is None, "it is not known"
    assert (table["m"]["clips"], table["m"]["questions"]) == (2, 6)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        good = generator.random((60, 2)) < [0.8, 0.6]
        ours = [row(str(clip), "m", task=[good[clip, 1]]) for clip in range(60)]
        base = [row(str(clip), "b", task=[good[clip, 0]]) for clip in range(60)]
        _, difference = paired_bootstrap(ours, base, ["task"], draws=400, seed=trial)
        assert difference.low <= difference.value <= difference.high
        covered += difference.low <= -0.2 <= difference.high
    assert 88 <= covered <= 100


def test_methods_on_the_same_clips_only():
    with pytest.raises(ValueError, match="no clip in common"):
        paired_bootstrap([row("a", "m", t=[1])], [row("b", "u", t=[1])], ["t"])


def test_labels_and_words():
    assert label(UNCOMPRESSED) == "uncompressed"
    assert label(HoliTom(retention=0.2)) == "holitom:retention=0.2"
    assert [first_word(text) for text in (" Red.", "upper left", "", "two!")] == ["red", "upper", "", "two"]


def test_the_command(monkeypatch, capsys, tmp_path, tmp_path_factory):
    folder = build_llava_onevision(tmp_path / "model")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["holitom", "eval", "--model", str(folder), *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, capsys.readouterr()

    where = ("--out", str(tmp_path / "run"), "-n", "2", "--retention", "0.2")
    code, shown = run(*where, "--method", "holitom", "--json")
    assert code == 0
    report = json.loads(shown.out)
    assert [*report["methods"]] == [
        "uncompressed",
        "holitom:retention=0.2",
        "randomdrop:retention=0.2",
        "uniformframes:retention=0.2",
        "cellsample",
        "cellmean",
        "randominner",
        "randominner:merge=true",
    ]
    assert json.loads((tmp_path / "run" / "accuracy.json").read_text()) == report
    assert (tmp_path / "run" / "accuracy.png").stat().st_size > 5000
    before = (tmp_path / "run" / "rows.jsonl").read_bytes()
    code, shown = run(*where, "--method", "holitom")
    assert code == 0
    assert "difference" in shown.out
    assert "flash shape" in shown.out
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == before
    assert run(*where, "--seed", "3")[0] == 1
    assert run("--split", "exam")[0] == 2
