"""``holitom calibrate``: what compression changes, without labels."""

from __future__ import annotations

import json

import pytest
from tiny_checkpoints import build_llava_onevision

from holitom.cli import main
from holitom.corpus.questions import questions_by_video
from holitom.evaluation import Log, label
from holitom.evaluation.calibration import Comparison, compare, risk, smallest
from holitom.methods import EVS, Spread
from holitom.pipeline import Pipeline
from holitom.recommendation import Recommendation
from holitom.video.synthetic.files import write_clips


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_clips(folder, 2)
    return folder


def row(video, method, agrees, tokens=0.1):
    return Comparison(video, "?", method, "a", "a" if agrees else "b", agrees, 0.25, tokens)


def test_the_answers_are_those_that_asking_gives(checkpoint, films):
    pipeline = Pipeline.from_pretrained(checkpoint, device="cpu")
    path = str(films / "test-0-00000.mp4")
    question, methods = "What happens?", [Spread(retention=1.0), Spread(retention=0.1), EVS(retention=0.2)]
    log = Log(None, {}, Comparison)
    rows = compare(pipeline, [("film", path, question)], methods, log, max_new_tokens=4)
    assert [each.method for each in rows] == ["spread:retention=1.0", "spread", "evs:retention=0.2"]
    for each, method in zip(rows, methods, strict=True):
        assert each.answer == pipeline.ask(path, question, method, max_new_tokens=4).text
        assert each.full == pipeline.ask(path, question, None, max_new_tokens=4).text
    assert rows[0].agrees
    assert rows[0].distance == 0
    assert 0 < rows[1].distance <= 1
    before = list(rows)
    assert compare(pipeline, [("film", "gone.mp4", question)], methods, log) == before  # known: nothing is read


def test_the_risk_can_be_checked_by_hand():
    rows = [row("a", "spread", True), row("a", "spread", False), *(row(video, "spread", True) for video in "bcd")]
    rows += [row(video, "evs", True, 0.3) for video in "abcd"]
    found = risk(rows, Spread())
    assert found.disagreement.value == pytest.approx(1 / 5)
    assert found.disagreement.low == 0
    assert (found.videos, found.answers, found.distance) == (4, 5, 0.25)
    never = risk(rows, EVS())
    assert list(never.disagreement) == [0.0, 0.0, pytest.approx(1 - 0.05**0.25)]
    with pytest.raises(ValueError, match=r"nothing was compared under evs:retention=0\.5"):
        risk(rows, EVS(retention=0.5))


def test_the_smallest_is_one_above_which_every_share_keeps_the_bound():
    shares = {0.05: 1, 0.1: 0, 0.2: 1, 0.4: 0}  # answers of ten that differ
    methods = {share: Spread(retention=share) for share in shares}
    rows = [
        row(str(video), label(methods[share]), video >= wrong, share)
        for share, wrong in shares.items()
        for video in range(10)
    ]
    risks = [risk(rows, method) for method in methods.values()]
    assert smallest(risks, 0.05).method == methods[0.4]  # not 0.1, whose luck 0.2 does not share
    assert smallest(risks, 0.1).method == methods[0.05]
    assert smallest([risk(rows, methods[0.2])], 0.05) is None


def test_the_command(monkeypatch, capsys, tmp_path, checkpoint, films):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["holitom", "calibrate", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, capsys.readouterr()

    few = tmp_path / "few.jsonl"
    lines = (films / "questions.jsonl").read_text().splitlines()
    few.write_text("\n".join([lines[0], lines[1], lines[-1]]) + "\n")
    where = (f"{films}/", "--questions", few, "--model", checkpoint, "--out", tmp_path / "run", "--max-new-tokens", 2)
    where += ("--retention", 0.9, "--retention", 0.2, "--method", "spread", "--bound", 1)
    code, shown = run(*where, "--json")
    assert code == 0, shown.err
    report = json.loads(shown.out)
    assert set(report["methods"]) == {"spread:retention=0.9", "spread:retention=0.2"}
    assert report["smallest"] == "spread:retention=0.2"
    assert report["methods"]["spread:retention=0.2"]["answers"] == 3
    assert json.loads((tmp_path / "run" / "calibration.json").read_text()) == report
    assert (tmp_path / "run" / "calibration.png").stat().st_size > 5000
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(tmp_path / "run" / "rows.parquet").num_rows == 6
    before = (tmp_path / "run" / "rows.jsonl").read_bytes()
    code, shown = run(*where, "--recommend")
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == before
    assert "spread:retention=0.2 is the smallest that keeps 0 % of the answers" in " ".join(shown.out.split())
    own = Recommendation.beside(checkpoint)
    assert own.method == Spread(retention=0.2)
    assert "3 answers about 2 videos" in own.measured_on
    assert run(films, "--model", checkpoint)[0] == 2


def test_questions_about_no_video_are_named(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"video": "a.mp4", "question": "?"}\n{"video": "b.mp4", "question": "?"}\n')
    with pytest.raises(ValueError, match=r"row 2: 'b\.mp4' is none"):
        questions_by_video(str(path), {"a.mp4": "/a.mp4"})
    path.write_text('{"video": "a.mp4"}\n')
    with pytest.raises(ValueError, match="row 1"):
        questions_by_video(str(path), {"a.mp4": "/a.mp4"})
