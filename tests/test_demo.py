"""What the demo answers, and what it refuses, in sentences. How it looks is tested in tests/browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from corpus_readers import Dawdling
from media import write_video
from playlists import KINDS, playlist
from report_traces import pipeline
from typer.testing import CliRunner

from holitom.cli import app
from holitom.cli.loading import TINY, recommended
from holitom.demo import reading
from holitom.demo.app import samples
from holitom.demo.reading import ClipReader, Limits, Upload, UploadReader
from holitom.demo.work import QuestionQueue, method_of
from holitom.methods.registry import names, parse
from holitom.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, 12)
    return str(path)


@pytest.fixture(scope="module")
def queue(pipe):
    queue = QuestionQueue(pipe)
    yield queue
    queue.close()


def ask(queue, video, question="What?", method="holitom", retention=0.3, frames=6, tokens=8):
    return list(queue.ask(video, question, method, retention, frames, tokens))


class TestAnswers:
    def test_both_come_piece_by_piece_and_are_those_of_the_pipeline(self, pipe, queue, film):
        seen = ask(queue, film)
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

    def test_the_last_news_hold_the_page_and_no_path(self, queue, film):
        page = ask(queue, film)[-1].page
        assert "film.mp4" in page
        assert film not in page

    def test_every_method_takes_the_slider(self):
        for name in names():
            method = method_of(name, 0.5)
            assert method.name == name
            assert 0.5 in [getattr(method, field, 0.5) for field in ("retention", "inner_retention")]

    def test_a_reader_who_leaves_does_not_leave_the_model_busy(self, queue, film):
        ask(queue, film)
        before = threading.active_count()
        news = queue.ask(film, "What?", "holitom", 0.3, 6, 8)
        for now in news:
            if now.answers[0]:
                break
        news.close()
        assert threading.active_count() == before
        assert ask(queue, film)[-1].status == "done", "the model is free again"


class TestRefusals:
    def sentence(self, queue, video, **options) -> str:
        seen = ask(queue, video, **options)
        assert seen[-1].failed
        assert seen[-1].page is None
        text = seen[-1].status
        assert text[0] == text[0].upper() or text.startswith(Path(video).name)
        assert "Traceback" not in text
        return text

    def test_nothing_uploaded(self, queue):
        assert "upload one" in self.sentence(queue, None)

    def test_nothing_asked(self, queue, film):
        assert "no question" in self.sentence(queue, film, question="  ")

    def test_a_corrupt_file_is_named_without_its_place(self, queue, tmp_path):
        path = tmp_path / "broken.mp4"
        path.write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(4000))
        text = self.sentence(queue, str(path))
        assert text.startswith("broken.mp4: ")
        assert str(tmp_path) not in text

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_playlist_shows_no_other_file_of_this_machine(self, queue, tmp_path, kind):
        assert "a playlist, not a video" in self.sentence(queue, str(playlist(tmp_path, kind)))

    def test_an_empty_file(self, queue, tmp_path):
        (tmp_path / "empty.mp4").touch()
        assert "empty" in self.sentence(queue, str(tmp_path / "empty.mp4"))

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
    def test_values_that_the_sliders_cannot_send(self, queue, film, options, words):
        assert words in self.sentence(queue, film, **options)

    @pytest.mark.parametrize(
        ("limits", "words"),
        [
            (Limits(megabytes=0.0001), "larger than"),
            (Limits(pixels=1000), "fewer frames"),
            (Limits(seconds=0.1), "minut"),
        ],
    )
    def test_films_beyond_the_limits_are_refused_before_they_are_decoded(self, queue, film, monkeypatch, limits, words):
        monkeypatch.setattr(reading, "read_video", lambda *_: pytest.fail("was decoded"))
        monkeypatch.setattr(queue, "limits", limits)
        if limits.megabytes < 1:
            assert words in self.sentence(queue, film)
        else:
            with pytest.raises(ValueError, match=words):
                UploadReader(limits).read(Upload("film.mp4", film, 6))


def test_an_upload_that_takes_too_long_is_given_up_and_holds_up_nobody(pipe, film, tmp_path):
    limits = Limits(reading=4.0)
    queue = QuestionQueue(pipe, limits=limits)
    queue.clips.close()
    queue.clips = ClipReader(limits, Dawdling(limits))
    slow, refused = tmp_path / "slow.mp4", []
    slow.write_bytes(Path(film).read_bytes())
    hostile = threading.Thread(target=lambda: refused.append(ask(queue, str(slow))[-1]), daemon=True)
    try:
        hostile.start()
        assert ask(queue, film)[-1].status == "done"
        hostile.join(120)
        assert refused[0].failed
        assert refused[0].status == "slow.mp4: it took longer than 4 s to read and was given up"
        assert ask(queue, film)[-1].status == "done", "its reader is there again"
    finally:
        queue.close()


def test_the_first_click_is_right(tmp_path):
    """On every sample clip the tiny model answers rightly, with the method and the share at which the page begins."""
    pipeline = Pipeline.from_pretrained(TINY, device="cpu", dtype="float32")
    clips = samples(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text("utf-8").splitlines()]
    wanted = {(str(tmp_path / row["video"]), row["question"]): row["answer"] for row in rows}
    own = recommended("tiny")
    assert own is not None
    for path, question in clips.values():
        answer = pipeline.ask(path, question, method_of(own.method.name, own.retention), max_new_tokens=8)
        assert answer.text == wanted[path, question]


def test_closing_ends_the_reading_processes(film):
    clips = ClipReader(Limits(readers=1))
    assert next(clip for clip in clips.read(Path(film), 4) if clip is not None).frames.shape[0] == 4
    process = clips._workers[0].process
    clips.close()
    process.join(20)
    assert not process.is_alive()


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


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_uploads_go_with_the_process(film, tmp_path, sign):
    pytest.importorskip("gradio", reason="the extra holitom[demo] is not installed")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "launch.py"), "demo", "--model", "tiny"],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        opened = process.stdout.readline()
        assert opened.startswith("open http://127.0.0.1:"), opened
        body = b"--x\r\nContent-Disposition: form-data; name=files; filename=mine.mp4\r\n\r\n"
        body += Path(film).read_bytes() + b"\r\n--x--\r\n"
        request = urllib.request.Request(
            f"{opened.split()[1].rstrip('/')}/gradio_api/upload",
            body,
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        [uploaded] = json.loads(urllib.request.urlopen(request, timeout=60).read())
        assert Path(uploaded).read_bytes() == Path(film).read_bytes()
        assert tmp_path in Path(uploaded).parents
        process.send_signal(sign)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []
