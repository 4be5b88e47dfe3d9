"""What the demo answers, and what it refuses, in sentences. How it looks is tested in tests/browser."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from media import write_video
from playlists import KINDS, playlist
from report_traces import pipeline
from typer.testing import CliRunner

from holitom.cli import app
from holitom.demo import work
from holitom.demo.work import method_of, run
from holitom.methods.registry import names, parse


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, 12)
    return str(path)


def ask(pipe, video, question="What?", method="holitom", retention=0.3, frames=6, tokens=8):
    return list(run(pipe, video, question, method, retention, frames, tokens))


class TestAnswers:
    def test_both_come_piece_by_piece_and_are_those_of_the_pipeline(self, pipe, film):
        seen = ask(pipe, film)
        assert seen[-1].status == "done"
        want = [
            pipe.ask(film, "What?", each, frames=6, max_new_tokens=8).text
            for each in (None, parse("holitom:retention=0.3"))
        ]
        assert list(seen[-1].answers) == [text or "(no answer)" for text in want]
        for lane in (0, 1):
            steps = list(dict.fromkeys(now.answers[lane] for now in seen))
            assert len(steps) > 3, "an answer of 8 tokens comes in several pieces"
        assert all("first token after" in numbers and "tokens/s" in numbers for numbers in seen[-1].numbers)
        assert "97 of 97" in seen[-1].numbers[0]

    def test_the_last_news_hold_the_page_and_no_path(self, pipe, film):
        page = ask(pipe, film)[-1].page
        assert "film.mp4" in page
        assert film not in page

    def test_every_method_takes_the_slider(self):
        for name in names():
            method = method_of(name, 0.5)
            assert method.name == name
            assert 0.5 in [getattr(method, field, 0.5) for field in ("retention", "inner_retention")]

    def test_a_reader_who_leaves_does_not_leave_the_model_busy(self, pipe, film):
        before = threading.active_count()
        news = run(pipe, film, "What?", "holitom", 0.3, 6, 8)
        for now in news:
            if now.answers[0]:
                break
        news.close()
        assert threading.active_count() == before


class TestRefusals:
    def sentence(self, pipe, video, **options) -> str:
        seen = ask(pipe, video, **options)
        assert seen[-1].failed
        assert seen[-1].page is None
        text = seen[-1].status
        assert text[0] == text[0].upper() or text.startswith(Path(video).name)
        assert "Traceback" not in text
        return text

    def test_nothing_uploaded(self, pipe):
        assert "upload one" in self.sentence(pipe, None)

    def test_nothing_asked(self, pipe, film):
        assert "no question" in self.sentence(pipe, film, question="  ")

    def test_a_corrupt_file_is_named_without_its_place(self, pipe, tmp_path):
        path = tmp_path / "broken.mp4"
        path.write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(4000))
        text = self.sentence(pipe, str(path))
        assert text.startswith("broken.mp4: ")
        assert str(tmp_path) not in text

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_playlist_shows_no_other_file_of_this_machine(self, pipe, tmp_path, kind):
        assert "a playlist, not a video" in self.sentence(pipe, str(playlist(tmp_path, kind)))

    def test_an_empty_file(self, pipe, tmp_path):
        (tmp_path / "empty.mp4").touch()
        assert "empty" in self.sentence(pipe, str(tmp_path / "empty.mp4"))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"question": "x" * 501}, "501 characters"),
            ({"frames": 65}, "up to 64"),
            ({"tokens": 100_000}, "up to 256"),
            ({"retention": 0.0}, "(0, 1]"),
            ({"method": "../../etc"}, "no method"),
        ],
    )
    def test_values_that_the_sliders_cannot_send(self, pipe, film, options, words):
        assert words in self.sentence(pipe, film, **options)

    @pytest.mark.parametrize(("limit", "value", "words"), [
        ("MEGABYTES", 0, "larger than"), ("PIXELS", 1000, "fewer frames"), ("SECONDS", 0.1, "minutes"),
    ])  # fmt: skip
    def test_films_beyond_the_limits_are_refused_before_they_are_decoded(
        self, pipe, film, monkeypatch, limit, value, words
    ):
        monkeypatch.setattr(work, limit, value)
        monkeypatch.setattr(work, "read_video", lambda *_: pytest.fail("was decoded"))
        assert words in self.sentence(pipe, film)


def test_the_command_shares_nothing_unless_told():
    from typer.main import get_command

    command = get_command(app).commands["demo"]
    defaults = {parameter.name: parameter.default for parameter in command.params}
    assert defaults["share"] is False
    assert defaults["host"] == "127.0.0.1"
    assert "0.0.0.0" in CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "200"}).output


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["demo"])
    assert isinstance(result.exception, ImportError)
    assert "pip install 'holitom[demo]'" in str(result.exception)
