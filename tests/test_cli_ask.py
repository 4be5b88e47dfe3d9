"""``holitom ask`` as a user types it."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from media import write_video
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom, __version__
from holitom.cli import main
from holitom.pipeline import STAGES, Pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("films") / "film.mp4"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command and gives its exit code, output and messages."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["holitom", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = capsys.readouterr()
        return exit_.value.code or 0, shown.out, shown.err

    return call


def test_json_is_the_whole_proof(run, checkpoint, film):
    code, out, _ = run(
        "ask", film, "What happens?", "--model", checkpoint, "--frames", 8, "--max-new-tokens", 5, "--json",
        "--retention", 0.25, "--compare",
    )  # fmt: skip
    assert code == 0
    report = json.loads(out)
    ours, full = report["compressed"], report["uncompressed"]
    assert ours["method"]["method"] == "holitom"
    assert ours["method"]["retention"] == 0.25
    assert full["method"]["method"] == "uncompressed"
    frames = ours["videos"][0]["frames"]
    whole = frames * 16 + 1
    assert ours["visual_tokens"]["full"] == full["visual_tokens"]["entering"] == whole
    assert ours["visual_tokens"]["leaving"] < ours["visual_tokens"]["entering"] < whole
    assert ours["cost"]["compressed"]["kv_cache_bytes"] < ours["cost"]["full"]["kv_cache_bytes"]
    assert ours["cost"]["full"] == full["cost"]["compressed"]
    assert [*ours["seconds"]] == [*STAGES, "time to first token"]
    assert all(seconds >= 0 for seconds in ours["seconds"].values())
    assert ours["seconds"]["time to first token"] == pytest.approx(sum(ours["seconds"][name] for name in STAGES))
    assert sum(last - first + 1 for first, last in ours["videos"][0]["segments"]) == frames
    assert ours["tokens"] == 5


def test_the_table_names_every_figure(run, checkpoint, film):
    code, out, _ = run("ask", film, "What?", "--model", checkpoint, "--frames", 6, "--max-new-tokens", 3, "--compare")
    assert code == 0
    for figure in (
        "visual tokens into the LLM",
        "visual tokens after the inner stage",
        "segments found",
        "prefill FLOPs (paper's formula)",
        "prefill FLOPs (causal)",
        "KV cache, bytes",
        *STAGES,
        "time to first token",
        "decode, tokens/s",
        "uncompressed",
        "ratio",
    ):
        assert figure in out


def test_the_table_puts_first_what_the_method_changes(run, checkpoint, film):
    words = ("ask", film, "What?", "--model", checkpoint, "--frames", 6, "--max-new-tokens", 3, "--compare")
    _, out, _ = run(*words, "--method", "spread", "--retention", 0.25)
    lines = out.splitlines()
    says = r"[\d,]+ of [\d,]+ visual tokens enter the LLM, the answer is (the same|another one), "
    assert re.fullmatch(says + r"LLM prefill [\d.]+ times as fast, \d+ % of the KV cache", lines[2])
    same = lines[1] == f"uncompressed: {lines[0]}"
    assert ("the answer is the same" in lines[2]) == same
    rows = [line.strip().partition(",")[0] for line in lines]
    mark = rows.index("of it")
    assert lines[mark].strip() == "of it, what spread does not change:"
    assert rows[mark + 1 : mark + 4] == ["decode", "preprocess", "vision tower"]
    assert rows.index("LLM prefill") < rows.index("compression") < rows.index("time to first token") < mark
    assert len(lines[rows.index("compression")].split()) == 3  # nothing to compare it with
    _, out, _ = run(*words, "--method", "renewal|spread:retention=0.25")
    rows = [line.strip().partition(",")[0] for line in out.splitlines()]
    assert rows.index("vision tower") < rows.index("of it")
    assert rows.count("vision tower") == 1


def test_the_answer_is_what_generate_gives(run, checkpoint, film):
    """The command, the pipeline and a plain session agree."""
    _, out, _ = run("ask", film, "What?", "--model", checkpoint, "--frames", 6, "--max-new-tokens", 6, "--json")
    pipeline = Pipeline.from_pretrained(checkpoint, device="cpu")
    pieces: list[str] = []
    answer = pipeline.ask(film, "What?", HoliTom(), frames=6, max_new_tokens=6, streamer=pieces.append)
    assert json.loads(out)["answer"] == answer.text
    assert "".join(pieces).strip() == answer.text
    from holitom.video import read_video

    inputs = pipeline.preprocessor("What?", read_video(film, 6))
    with HoliTom()(pipeline.model), torch.no_grad():
        ids = pipeline.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    text = pipeline.preprocessor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == answer.text


def test_other_methods_and_none(run, checkpoint, film):
    base = ("ask", film, "What?", "--model", checkpoint, "--frames", 6, "--max-new-tokens", 2, "--json")
    code, out, _ = run(*base, "--method", "visionzip|fastv:layer=2", "--retention", "0.5")
    assert code == 0
    assert json.loads(out)["videos"][0]["inner_layers"] == [2]
    code, out, _ = run(*base, "--method", "none")
    assert json.loads(out)["visual_tokens"]["entering"] == json.loads(out)["visual_tokens"]["full"]


def test_version_and_help(run):
    assert run("--version") == (0, f"holitom {__version__}\n", "")
    code, out, _ = run("--help")
    assert code == 0
    assert "ask" in out
    assert "clips" in out
    code, out, _ = run("ask", "--help")
    for option in ("--model", "--method", "--retention", "--frames", "--compare", "--json"):
        assert option in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--retention", "1.5"), "must lie in (0, 1], got 1.5"),
        (("--method", "holytom"), "did you mean holitom"),
        (("--method", "holitom:similarty=0.5"), "no parameter 'similarty'"),
        (("--method", "none", "--retention", "0.1"), "leave --retention out"),
        (("--frames", "0"), "--frames"),
        (("--max-new-tokens", "0"), "--max-new-tokens"),
        (("--window", "0"), "--window must be above 0, got 0.0"),
        (("--fps", "-1"), "--fps must be above 0, got -1.0"),
        (("--tokens", "0"), "--tokens"),
        (("--tokens", "90", "--retention", "0.1"), "--tokens and --retention both say how much stays"),
        (("--fps", "1", "--frames", "9"), "--fps and --frames both say how many frames"),
        (("--window", "9", "--compare"), "leave it out"),
    ],
)
def test_wrong_usage_exits_with_2(run, film, words, says):
    code, out, err = run("ask", film, "What?", *words)
    assert code == 2
    assert says in " ".join(err.split())
    assert out == ""


def test_bad_input_exits_with_1_and_a_sentence(run, checkpoint, film, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 50)
    shallow = build_llava_onevision(tmp_path / "shallow", layers=1)
    mangled = tmp_path / "mangled"
    shutil.copytree(checkpoint, mangled)
    config = json.loads((mangled / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    (mangled / "config.json").write_text(json.dumps(config))
    for words, says in (
        ((tmp_path / "missing.mp4", "?", "--model", checkpoint), "missing.mp4: no such file"),
        ((broken, "?", "--model", checkpoint), "broken.mp4"),
        ((film, "?", "--model", tmp_path / "nowhere"), "there is no model folder"),
        ((film, "?", "--model", tmp_path), str(tmp_path)),
        ((film, "?", "--model", shallow), "this model can merge at 1..0"),
        ((film, "?", "--model", mangled), f"cannot load {mangled}: "),
        ((film, "?", "--model", checkpoint, "--method", "holitom:layer=9"), "this model can merge at 1..3"),
    ):
        code, out, err = run("ask", *words)
        assert code == 1, words
        assert out == ""
        assert err.startswith("error: ")
        assert says in err
        assert "Traceback" not in err


def test_a_folder_of_images(run, checkpoint, tmp_path):
    from PIL import Image

    for number in range(5):
        pixels = np.full((40, 50, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"frame{number}.png")
    code, out, _ = run("ask", tmp_path, "?", "--model", checkpoint, "--max-new-tokens", 2, "--json")
    assert code == 0
    assert json.loads(out)["videos"][0]["frames"] == 5


def test_a_long_video_is_read_in_windows(run, checkpoint, film):
    long = ("ask", film, "What?", "--model", checkpoint, "--max-new-tokens", 4, "--window", 1, "--fps", 10)
    code, out, err = run(*long, "--tokens", 80, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["visual_tokens"]["full"] == 20 * 16 + 1
    assert report["visual_tokens"]["entering"] == 80
    assert report["videos"][0]["frames"] == 20
    assert all(report["seconds"][name] > 0 for name in STAGES)
    code, out, _ = run(*long, "--retention", 0.5)
    assert code == 0
    assert "visual tokens into the LLM" in out
    code, out, err = run("ask", film, "What?", "--model", checkpoint, "--tokens", 1)
    assert code == 1
    assert "tokens=1 leaves none beside the 1 after a video" in err


def test_the_table_says_which_settings_and_positions_were_used(run, checkpoint, film, tmp_path):
    own = shutil.copytree(checkpoint, tmp_path / "own")
    (own / "holitom.json").write_text(json.dumps({"method": "evs:retention=0.3", "measured_on": "ten clips"}))
    short = ("--model", own, "--frames", 4, "--max-new-tokens", 2)
    code, out, _ = run("ask", film, "What happens?", *short)
    assert code == 0
    assert "evs:retention=0.3, positions compact" in out
    _, out, _ = run("ask", film, "What happens?", *short, "--method", "spread", "--retention", 0.5)
    assert "spread:retention=0.5, positions original" in out
    code, _, err = run("ask", film, "What happens?", *short, "--positions", "kept")
    assert (code, "neither compact nor original" in err) == (2, True)


def test_fps_alone_samples_the_whole_video_at_that_rate(run, checkpoint, film):
    code, out, _ = run("ask", film, "What?", "--model", checkpoint, "--fps", 5, "--max-new-tokens", 2, "--json")
    assert code == 0
    assert [video["frames"] for video in json.loads(out)["videos"]] == [10]  # two seconds
    code, _, err = run("ask", film, "What?", "--model", checkpoint, "--fps", 5, "--frames", 3)
    assert code == 2
    assert "--fps and --frames both say how many frames" in err
    pipeline = Pipeline.from_pretrained(checkpoint)
    assert pipeline.ask(film, "What?", fps=2, max_new_tokens=2).as_dict()["videos"][0]["frames"] == 4
    with pytest.raises(ValueError, match="give either fps or frames"):
        pipeline.ask(film, "What?", fps=2, frames=4)
    with open(film, "rb") as file:
        assert pipeline.ask(file, "What?", frames=3, max_new_tokens=2).as_dict()["videos"][0]["frames"] == 3
