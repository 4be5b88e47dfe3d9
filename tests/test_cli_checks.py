"""Commands refuse what cannot end well before they load a model, and print what they found as it is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from media import write_video
from rich.console import Console
from tiny_checkpoints import build_llava_onevision

from holitom.cli import console, main
from holitom.cli.ask import compared
from holitom.cli.choices import choose
from holitom.extras import sentence
from holitom.pipeline import Pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("films") / "film.mp4", 6))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command and gives its exit code, output and messages."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["holitom", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = capsys.readouterr()
        return exit_.value.code or 0, shown.out, " ".join(shown.err.split())

    return call


@pytest.fixture
def unloaded(monkeypatch):
    """Fails where a model is loaded."""
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["ask", "{film}", ""], 2, "the question is empty"),
        (["ask", "{film}", "a\udce9"], 2, "no UTF-8 text"),
        (["ask", "{tmp}/none.mp4", "?"], 1, "none.mp4: no such file"),
        (["ask", "{film}", "?", "--dtype", "float8"], 2, "'float8' is none of auto, float32, bfloat16, float16"),
        (["ask", "{film}", "?", "--device", "cuda:77"], 2, "'cuda:77' cannot be used here"),
        (["ask", "{film}", "?", "--device", "tpu"], 2, "'tpu' cannot be used here"),
        (["show", "{film}", "--question", " "], 2, "the question is empty"),
        (["show", "{film}", "--png", "{tmp}/a.jpg"], 2, "the name must end with .png"),
        (["show", "{film}", "--mp4", "{tmp}/none/a.mp4"], 2, "there is no folder"),
        (["show", "{film}", "--out", "{tmp}"], 2, "it is a folder"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.csv"], 2, ".parquet or .jsonl"),
        (["caption", "{film}", "--question", "", "--out", "{tmp}/a.jsonl"], 1, "the question is empty"),
        (["caption", "{film}", "--question", "?", "--out", "{film}/a.jsonl"], 2, "is no folder"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.jsonl", "--summary", "{tmp}"], 2, "it is a folder"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.jsonl", "--dtype", "int8"], 2, "'int8' is none"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.jsonl", "--patience", "9"], 2, "--timeout now"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.jsonl", "--ahead", "9"], 2, "--prefetch now"),
        (["caption", "{film}", "--question", "?", "--out", "{tmp}/a.jsonl", "--model", "./none"], 1, "no model folder"),
        (["eval", "--out", "{film}"], 2, "is no folder"),
        (["clips", "make", "--out", "{film}"], 2, "is no folder"),
        (["bench", "--preset", "tiny", "--accuracy", "{tmp}/none.json"], 2, "there is no file"),
    ],
)  # fmt: skip
def test_what_cannot_end_well_is_refused_before_a_model_is_loaded(run, unloaded, film, tmp_path, words, code, says):
    before = sorted(tmp_path.iterdir())
    found, out, err = run(*(word.format(film=film, tmp=tmp_path) for word in words))
    assert (found, out) == (code, "")
    assert says in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("option", "module"), [("--engine=vllm", "vllm"), ("--ray", "ray")])
def test_missing_extras_are_named_first(run, unloaded, film, tmp_path, option, module):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    code, _, err = run("caption", film, "--question", "?", "--out", tmp_path / "a.jsonl", option)
    assert code == 1
    assert f"pip install 'holitom[{module}]'" in err


def test_a_hub_id_without_a_network_takes_seconds_and_says_why(run, film, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    code, out, err = run("ask", film, "?", "--model", "nobody/no-such-model")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: there is no folder nobody/no-such-model here, and the hub cannot be reached .*", err)
    assert time.monotonic() - began < 30, "transformers alone would try for 38 s"


def test_a_toy_says_that_it_is_one_and_answers_at_its_own_retention(run, film):
    words = ("ask", film, "?", "--max-new-tokens", 1, "--json")
    code, out, err = run(*words)
    assert code == 0
    assert err.startswith("without --model the tiny model inside the package answers")
    assert '"retention": 0.25' in out
    code, _, err = run(*words, "--model", "tiny")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("method", "retention", "model", "want"),
    [
        ("holitom", None, "tiny", 0.25),
        ("holitom", None, "a/b", 0.1),
        ("holitom", 0.5, "tiny", 0.5),
        ("holitom:retention=0.3", None, "tiny", 0.3),
        ("evs:pruning_rate=0.6", None, "tiny", None),
        ("dycoke", None, "tiny", None),
    ],
)
def test_the_retention_that_counts(method, retention, model, want):
    found = choose(method, retention, model)
    assert found is not None
    settings = found.settings()
    assert settings["retention"] == want or (want is None and settings == choose(method, None).settings())


class Chatty:
    """Stands for a model that says what rich would paint, break or replace."""

    text = "[bold]a[/bold] :smile: " + "word " * 60 + "\x1b[31m\u2028end"


def test_what_the_model_says_is_printed_as_it_is(run, film, checkpoint, monkeypatch):
    ask = Pipeline.ask
    monkeypatch.setattr(Pipeline, "ask", lambda *given, **more: replace(ask(*given, **more), text=Chatty.text))
    _, out, _ = run("ask", film, "?", "--model", checkpoint, "--max-new-tokens", 1)
    assert out.startswith(f"{Chatty.text}\n")
    _, out, _ = run("ask", film, "?", "--model", checkpoint, "--max-new-tokens", 1, "--compare")
    assert out.startswith(f"{Chatty.text}\nuncompressed: {Chatty.text}\n")


def test_a_terminal_gets_no_escape_sequences(run, checkpoint, tmp_path):
    assert console.clean("a\x1b[2Jb\u202ec\nd\te") == "a\\x1b[2Jb\\u202ec\nd\te"
    path = write_video(tmp_path / "film.mp4", 2).rename(tmp_path / "\x1b]0;owned\x07[bold]:smile:.mp4")
    path.write_bytes(b"")
    code, _, err = run("ask", path, "?", "--model", checkpoint)
    assert code == 1
    assert "\\x1b]0;owned\\x07[bold]:smile:.mp4: the file is empty" in err


def test_comparing_takes_turns_and_medians_after_a_first_time_that_does_not_count(film, checkpoint, monkeypatch):
    pipeline = Pipeline.from_pretrained(checkpoint, device="cpu")
    method, asked, ask = choose("holitom", None), [], Pipeline.ask

    def counting(self, video, question, given=None, **more):
        answer = ask(self, video, question, given, **more)
        asked.append(given)
        seconds = 1e9 if len(asked) <= 2 else float(len(asked))
        return replace(answer, seconds=dict.fromkeys(answer.seconds, seconds), tokens_per_second=seconds)

    monkeypatch.setattr(Pipeline, "ask", counting)
    first, second = compared(pipeline, film, "?", method, {"frames": 4, "max_new_tokens": 2})
    assert asked == [None, method, method, None, None, method, method, None]
    for answer, of in ((first, (3, 6, 7)), (second, (4, 5, 8))):
        assert set(answer.seconds.values()) == {of[1]}
        assert answer.tokens_per_second == of[1]


def test_tables_are_whole_in_a_narrow_terminal(run, film, checkpoint, monkeypatch):
    monkeypatch.setattr(console, "out", Console(width=40))
    words = [["ask", film, "?", "--model", checkpoint, "--max-new-tokens", "2"], ["methods"], ["models"]]
    for each in words:
        code, out, _ = run(*each)
        assert code == 0
        rows = re.sub("…: ForCond.*", "", out, flags=re.DOTALL)
        if each[0] == "ask":
            assert re.search(r"visual tokens into the LLM +[\d,]+ +[\d,]+ +\d\.\d{3}\n", rows)
            assert "uncompressed  ratio" in rows
        if each[0] == "methods":
            assert "uniformframes" in rows
            assert "…" not in rows
        if each[0] == "models":
            assert "LlavaOnevision…" in rows


def test_completion_is_that_of_the_command(monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # take the shell that is named
    done = subprocess.run(
        [sys.executable, "-m", "holitom", "--show-completion", "bash"], capture_output=True, text=True, check=True
    )
    assert "_HOLITOM_COMPLETE=complete_bash" in done.stdout
    assert "__main__" not in done.stdout
    assert "python -m" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_is_said_in_words(run, film):
    code, _, err = run("show", film, "--method", "randomdrop", "--frames", 4, "--out", "/dev/full")
    assert code == 1
    assert "No space left on device" in err
    assert "Errno" not in err
    assert sentence(OSError(30, "Read-only file system", "/films/a.html")) == ("/films/a.html: Read-only file system")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_show_takes_a_name_that_is_no_utf_8(run, film, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    odd.write_bytes(Path(film).read_bytes())
    page = tmp_path / os.fsdecode(b"\xff.html")
    code, _, err = run("show", odd, "--method", "randomdrop", "--frames", 4, "--out", page)
    assert (code, page.exists()) == (0, True), err
    assert "caf" in page.read_text("utf-8")
