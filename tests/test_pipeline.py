"""``Pipeline``: what people hand to it, as videos, methods, streamers, and arguments of generate() and of loading."""

from __future__ import annotations

import json
from threading import Thread

import numpy as np
import pytest
import torch
from media import write_video
from PIL import Image
from tiny_checkpoints import build_llava_onevision
from transformers import AutoModelForImageTextToText, TextIteratorStreamer
from typer.testing import CliRunner

import holitom
from holitom import Clip, HoliTom, Pipeline, read_video
from holitom.cli import app
from holitom.cost.towers import TOWERS
from holitom.generation import on_device_of

METHOD = HoliTom(retention=0.3, layer=2)
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0)


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return Pipeline.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("films") / "film.mp4"))


@pytest.fixture(scope="module")
def clip(film):
    return read_video(film, 8)


def frames_of(answer):
    return answer.summary.prompts[0].videos[0].frames


class TestGeneration:
    def test_all_answers_come_back(self, pipeline, clip):
        options = {**SHORT, "num_beams": 4, "num_return_sequences": 3}
        answer = pipeline.ask(clip, "What?", METHOD, **options)
        inputs = pipeline.preprocessor("What?", clip)
        with METHOD(pipeline.model), torch.no_grad():
            ids = pipeline.model.generate(**inputs, **options, do_sample=False)
        produced = ids[:, inputs["input_ids"].shape[1] :]
        texts = pipeline.preprocessor.tokenizer.batch_decode(produced, skip_special_tokens=True)
        assert answer.texts == tuple(text.strip() for text in texts)
        assert answer.text == answer.texts[0]
        assert answer.as_dict()["answers"] == list(answer.texts)
        assert len(set(answer.texts)) > 1
        assert answer.output is None

    def test_what_generate_returns_is_there(self, pipeline, clip):
        answer = pipeline.ask(clip, "What?", METHOD, **SHORT, return_dict_in_generate=True, output_scores=True)
        assert len(answer.output.scores) == answer.tokens == 6
        assert answer.text == pipeline.ask(clip, "What?", METHOD, **SHORT).text

    def test_a_function_and_a_streamer_get_the_answer(self, pipeline, clip):
        pieces: list[str] = []
        answer = pipeline.ask(clip, "What?", METHOD, **SHORT, streamer=pieces.append)
        assert "".join(pieces).strip() == answer.text
        streamer = TextIteratorStreamer(pipeline.preprocessor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        asking = Thread(target=pipeline.ask, args=(clip, "What?", METHOD), kwargs={**SHORT, "streamer": streamer})
        asking.start()
        assert "".join(streamer).strip() == answer.text
        asking.join()

    def test_anything_else_is_no_streamer(self, pipeline, clip):
        with pytest.raises(TypeError, match=r"streamer must be a function or have put\(\) and end\(\), got str"):
            pipeline.ask(clip, "What?", METHOD, **SHORT, streamer="stdout")

    def test_stopping_criteria_of_the_caller_work_beside_the_clock(self, pipeline, clip):
        def after_two(ids, scores, **_):
            return torch.full((len(ids),), ids.shape[1] >= start + 2)

        start = pipeline.preprocessor("What?", clip)["input_ids"].shape[1]
        answer = pipeline.ask(clip, "What?", METHOD, **SHORT, stopping_criteria=[after_two])
        assert answer.tokens == 2
        assert answer.seconds["LLM prefill"] > 0

    def test_a_method_may_be_text(self, pipeline, clip):
        said = pipeline.ask(clip, "What?", "holitom:retention=0.3,layer=2", **SHORT)
        want = pipeline.ask(clip, "What?", METHOD, **SHORT)
        assert (said.text, said.summary.as_dict()) == (want.text, want.summary.as_dict())
        plain = [pipeline.ask(clip, "What?", none, **SHORT).summary for none in (None, "uncompressed")]
        assert [summary.name for summary in plain] == ["uncompressed"] * 2
        with pytest.raises(ValueError, match="there is no method 'holitm': did you mean holitom"):
            pipeline.ask(clip, "What?", "holitm")


class TestVideos:
    @pytest.mark.parametrize("kind", ["array", "tensor", "channels first", "pictures", "arrays"])
    def test_frames_in_memory(self, pipeline, clip, kind):
        frames = clip.frames
        given = {
            "array": frames,
            "tensor": torch.from_numpy(frames),
            "channels first": torch.from_numpy(frames).permute(0, 3, 1, 2),
            "pictures": [Image.fromarray(frame) for frame in frames],
            "arrays": list(frames),
        }[kind]
        want = pipeline.ask(Clip.from_frames(frames), "What?", METHOD, **SHORT)
        said = pipeline.ask(given, "What?", METHOD, **SHORT)
        assert (said.text, said.summary.visual_tokens) == (want.text, want.summary.visual_tokens)

    def test_several_videos(self, pipeline, film, clip):
        other = Clip.from_frames(clip.frames[::-1].copy())
        said = pipeline.ask([film, other], "Which?", METHOD, frames=8, **SHORT)
        inputs = on_device_of(pipeline.model, pipeline.preprocessor("Which?", clip, other))
        with METHOD(pipeline.model) as session, torch.no_grad():
            ids = pipeline.model.generate(**inputs, **SHORT, do_sample=False)
        text = pipeline.preprocessor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert len(said.summary.prompts[0].videos) == 2
        assert said.text == text.strip()
        assert said.summary.as_dict() == session.summary().as_dict()

    def test_frames_of_a_clip_are_chosen(self, pipeline, clip):
        said = pipeline.ask(clip, "What?", METHOD, frames=4, **SHORT)
        want = pipeline.ask(Clip.from_frames(clip.frames[::2]), "What?", METHOD, **SHORT)
        assert frames_of(said) == 4
        assert said.text == want.text

    def test_windows_take_the_frames_and_the_rate_of_a_clip(self, pipeline):
        seconds = Clip.from_frames(np.repeat(np.arange(12, dtype=np.uint8)[:, None, None, None] * 20, 56, 1)
                                   .repeat(56, 2).repeat(3, 3), fps=2.0)  # fmt: skip
        for options, frames in (
            ({"fps": 1.0, "window": 5}, 6),
            ({"fps": 1.0}, 6),
            ({"frames": 3, "window": 5}, 3),
            ({"window": 5}, 12),
        ):
            answer = pipeline.ask(seconds, "What?", METHOD, **options, **SHORT)
            assert frames_of(answer) == frames

    @pytest.mark.parametrize("frames", [0, -1, True, 2.0, "8"])
    def test_a_wrong_number_of_frames(self, pipeline, film, clip, frames):
        for video in (film, clip):
            with pytest.raises((TypeError, ValueError), match="frames must be"):
                pipeline.ask(video, "What?", frames=frames)

    @pytest.mark.parametrize(
        ("video", "words"), [([], "an empty list"), (3, "source must be a path, .* got int"), ([3], "got int")]
    )
    def test_what_is_no_video(self, pipeline, video, words):
        with pytest.raises((TypeError, ValueError), match=words):
            pipeline.ask(video, "What?")

    def test_more_frames_than_a_clip_has(self, pipeline, clip):
        with pytest.raises(ValueError, match="has 8 frames, of which frames=9 cannot be taken"):
            pipeline.ask(clip, "What?", frames=9)


class TestLoading:
    def test_arguments_reach_transformers(self, checkpoint):
        pipeline = Pipeline.from_pretrained(checkpoint, device="cpu", attn_implementation="eager", dtype=torch.bfloat16)
        assert pipeline.model.get_decoder().config._attn_implementation == "eager"
        assert pipeline.model.dtype == torch.bfloat16

    def test_code_beside_the_weights_is_not_run_unless_asked_for(self, checkpoint, monkeypatch):
        given = []
        load = AutoModelForImageTextToText.from_pretrained

        def note(*args, **kwargs):
            given.append({name: kwargs.get(name) for name in ("trust_remote_code", "revision")})
            return load(*args, **kwargs)

        monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", note)
        Pipeline.from_pretrained(checkpoint, device="cpu")
        Pipeline.from_pretrained(checkpoint, device="cpu", trust_remote_code=True, revision="main")
        assert given == [
            {"trust_remote_code": False, "revision": None},
            {"trust_remote_code": True, "revision": "main"},
        ]

    def test_two_places_are_refused(self, checkpoint):
        with pytest.raises(ValueError, match="device='cpu' and device_map= both say where the model goes"):
            Pipeline.from_pretrained(checkpoint, device="cpu", device_map="auto")

    @pytest.mark.parametrize("where", ["auto", "disk"])
    def test_accelerate_moves_weights_and_every_ask_works(self, pipeline, checkpoint, film, tmp_path, where):
        want = pipeline.ask(film, "What?", METHOD, **SHORT)
        if where == "auto":
            away = Pipeline.from_pretrained(checkpoint, device="auto")
        else:  # the embedding as well, so that no parameter says where inputs go
            parts = ("vision_tower", "multi_modal_projector", "image_newline", "language_model")
            places = {"lm_head": "cpu", **{f"model.{part}": "cpu" for part in parts}, "model.language_model": "disk"}
            away = Pipeline.from_pretrained(checkpoint, device_map=places, offload_folder=tmp_path)
        assert away.model.get_input_embeddings().weight.is_meta == (where != "auto")
        for _ in range(2):
            said = away.ask(film, "What?", METHOD, **SHORT)
            assert (said.text, said.summary.visual_tokens) == (want.text, want.summary.visual_tokens)
        assert away.ask(film, "What?", METHOD, window=5, **SHORT).tokens == 6


def test_a_family_of_unknown_cost_answers_all_the_same(pipeline, checkpoint, film, monkeypatch, tmp_path):
    """In Python and in every command; what is not known is None, or said."""
    want = pipeline.ask(film, "What?", METHOD, **SHORT).text
    monkeypatch.delitem(TOWERS, "llava_onevision")
    answer = pipeline.ask(film, "What?", METHOD, **SHORT)
    assert (answer.text, answer.summary.cost) == (want, None)

    def run(*words):
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return result.stdout

    method = ["--method", "holitom:retention=0.3,layer=2"]
    assert "not known for this family" in run("ask", film, "What?", "--model", checkpoint, *method)
    page, table = tmp_path / "page.html", tmp_path / "out.jsonl"
    run("show", film, "--model", checkpoint, *method, "--out", page, "--max-new-tokens", 2)
    assert "the FLOPs and bytes of this family are not known" in page.read_text("utf-8")
    run("caption", film, "--question", "What?", "--out", table, "--model", checkpoint, *method, "--workers", 0)
    assert json.loads(table.read_text("utf-8"))["prefill_flops"] is None
    report = json.loads(run("eval", "-n", 1, "--model", checkpoint, *method, "--json", "--out", tmp_path / "eval"))
    assert {entry["prefill_flops"] for entry in report["methods"].values()} == {None}
    short = ["--frames", 4, "--answer-tokens", 2, "--repeats", 1, "--warmup", 0]
    assert "holitom" in run("bench", checkpoint, *method, *short, "--out", tmp_path / "bench")


def test_everything_is_imported_from_the_top():
    for name in holitom.__all__:
        assert getattr(holitom, name).__module__.startswith("holitom.")
    assert {method.__name__ for method in holitom.methods.BUILTIN.values()} <= set(holitom.__all__)
