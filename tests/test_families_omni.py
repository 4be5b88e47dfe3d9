"""Qwen-Omni's thinkers: audio beside a video and inside it, the models around the thinker, whole checkpoints."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from families import AUDIO, AUDIO_END, AUDIO_START, VIDEO, Piece, Row, batch, build, model_of, row, words
from family_processors import VOCABULARY, checkpoint, processor
from family_reference import continue_by_hand, shortened, whole_prompt
from transformers.models.qwen2_5_omni import processing_qwen2_5_omni
from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe
from typer.testing import CliRunner

from holitom import HoliTom, Pipeline, Uncompressed
from holitom.cli import app
from holitom.cost import ModelShape
from holitom.models import find_model
from holitom.video import Clip, Preprocessor
from holitom.video.synthetic.files import write_mp4

OMNI = {
    "qwen2_5_omni": (transformers.Qwen2_5OmniConfig, transformers.Qwen2_5OmniForConditionalGeneration),
    "qwen3_omni_moe": (transformers.Qwen3OmniMoeConfig, transformers.Qwen3OmniMoeForConditionalGeneration),
}
LENGTHS = {
    "qwen2_5_omni": processing_qwen2_5_omni._get_feat_extract_output_lengths,
    "qwen3_omni_moe": processing_qwen3_omni_moe._get_feat_extract_output_lengths,
}
METHODS = {
    "outer": HoliTom(retention=0.25, layer=None),
    "exact": HoliTom(retention=0.3, layer=None, exact=True),
    "inner": HoliTom(retention=0.3, layer=3),
}
STEPS = 4


def heard(name: str, seed: int, length: int = 160) -> Piece:
    """Sound of ``length`` spectra."""
    spectra = torch.randn(1, 8, length, generator=torch.Generator().manual_seed(seed))
    ids = [AUDIO_START, *[AUDIO] * int(LENGTHS[name](length)), AUDIO_END]
    return ids, {"input_features": spectra, "feature_attention_mask": torch.ones(1, length, dtype=torch.long)}


def after_sound(name: str, seed: int, following: Row) -> Row:
    """Words and a sound, then the row."""
    piece = heard(name, seed)
    ids = [*words(2, seed), *piece[0], *words(1, seed + 1)]
    videos = [[len(ids) + column for column in columns] for columns in following.videos]
    return Row([*ids, *following.ids], [piece, *following.pieces], videos)


def generate(model, inputs, **more):
    out = model.generate(
        **inputs,
        max_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **more,
    )
    return out.sequences[:, -STEPS:].tolist(), torch.stack(out.logits, 1)


def by_hand(eager, name, one, videos, method, **more):
    whole = whole_prompt(eager, name, one, **more)
    return continue_by_hand(eager, shortened(whole, one, videos), method, STEPS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OMNI)
def test_sound_and_images_beside_videos(name: str, method: str):
    model, eager, settings = model_of(name), model_of(name, "eager"), METHODS[method]
    rows = [
        after_sound(name, 1, row(name, ("words", 3), ("video", 6), ("words", 5, 1))),
        after_sound(name, 2, row(name, ("words", 4, 3))),
        after_sound(
            name, 3, row(name, ("video", 4, 1), ("words", 2, 4), ("image", 5), ("video", 6, 2), ("words", 3, 5))
        ),
    ]
    with settings(model) as session:
        tokens, logits = generate(model, batch(name, *rows))
        prompts = session.prompts
    assert [len(prompt.videos) for prompt in prompts] == [1, 0, 2]
    for number, one in enumerate(rows):
        want, expected = by_hand(eager, name, one, prompts[number].videos, settings)
        torch.testing.assert_close(logits[number], expected, atol=5e-4, rtol=0)
        assert tokens[number] == want


@pytest.mark.parametrize("name", OMNI)
def test_retention_one_changes_no_bit(name: str):
    model, inputs = model_of(name), batch(name, after_sound(name, 1, row(name, ("video", 6), ("words", 5))))
    with torch.no_grad():
        want = model(**inputs).logits
        with HoliTom(retention=1.0, layer=None)(model):
            assert torch.equal(model(**inputs).logits, want)


def test_positions_of_qwen3_omni_are_fractions_in_these_tests():
    whole = whole_prompt(
        model_of("qwen3_omni_moe"), "qwen3_omni_moe", row("qwen3_omni_moe", ("video", 6), ("words", 5))
    )
    assert whole.positions.is_floating_point()
    assert whole.positions[0, -1] % 1 != 0


# the sound of a video, between its frames


def sounding(name: str, folder: Path, seed: int, *seconds: int) -> Row:
    """A question about videos of so many seconds and their sound, as the model's own processor writes it."""
    reader = processor(name, folder)
    random = np.random.default_rng(seed)
    videos = [torch.from_numpy(random.integers(0, 256, (2 * each, 3, 90, 120), dtype=np.uint8)) for each in seconds]
    for each, frames in zip(seconds, videos, strict=True):
        frames[each:] = frames[:1]
    inputs = reader(
        text=["user: " + "<|vision_start|><|video_pad|><|vision_end|>" * len(videos) + "What is heard?\nassistant:"],
        videos=videos,
        audio=[random.standard_normal(16000 * each).astype(np.float32) for each in seconds],
        load_audio_from_video=True,
        audio_from_video_indices=[*range(len(videos))],
        do_sample_frames=False,
        return_tensors="pt",
    )
    ids, _ = inputs.pop("input_ids")[0].tolist(), inputs.pop("attention_mask")
    columns = iter([at for at, token in enumerate(ids) if token == VIDEO])
    counts = [int(grid.prod()) // 4 for grid in inputs["video_grid_thw"]]
    return Row(ids, [([], dict(inputs))], [list(islice(columns, count)) for count in counts])


@pytest.fixture(scope="module", params=OMNI)
def talking(request, tmp_path_factory):
    """Questions about one video and about two; the model, and the same with eager attention."""
    name = request.param
    rows = [sounding(name, tmp_path_factory.mktemp(name), seed, *seconds) for seed, seconds in ((1, (3,)), (2, (2, 3)))]
    return name, rows, *(build(name, kind, vocab_size=VOCABULARY) for kind in ("sdpa", "eager"))


@pytest.mark.parametrize("method", METHODS)
def test_a_video_and_its_sound_equal_a_computation_by_hand(talking, method: str):
    name, rows, model, eager = talking
    settings = METHODS[method]
    [columns] = rows[0].videos
    between = rows[0].ids[columns[0] : columns[-1]]
    assert AUDIO in between, "sound stands between the frames"
    with settings(model) as session:
        tokens, logits = generate(model, batch(name, *rows), use_audio_in_video=True)
        prompts = session.prompts
    assert [len(prompt.videos) for prompt in prompts] == [1, 2]
    for number, one in enumerate(rows):
        want, expected = by_hand(eager, name, one, prompts[number].videos, settings, use_audio_in_video=True)
        torch.testing.assert_close(logits[number], expected, atol=5e-4, rtol=0)
        assert tokens[number] == want
        assert prompts[number].videos[0].merge.retention < 0.6


def test_a_second_question_about_a_video_and_its_sound(talking):
    name, [one, _], model, eager = talking
    kept = {"max_new_tokens": STEPS, "do_sample": False, "return_dict_in_generate": True}
    with METHODS["outer"](model) as session:
        first = model.generate(**batch(name, one), **kept, use_audio_in_video=True)
        videos = session.prompts[0].videos
        history = [*first.sequences[0].tolist(), *words(6, 9)]
        second = model.generate(
            input_ids=torch.tensor([history]), past_key_values=first.past_key_values, output_logits=True, **kept
        )
    whole, said = whole_prompt(eager, name, one, use_audio_in_video=True), history[len(one.ids) :]
    forced = [*said, *second.sequences[0, -STEPS:].tolist()]
    _, want = continue_by_hand(eager, shortened(whole, one, videos), METHODS["outer"], len(forced), forced)
    torch.testing.assert_close(torch.cat(second.logits), want[len(said) :], atol=5e-4, rtol=0)


def test_every_token_of_sound_stays_at_its_place(talking):
    name, rows, model, _ = talking
    caught: dict = {}
    whole = whole_prompt(model, name, rows[0], use_audio_in_video=True)
    with METHODS["outer"](model) as session, torch.no_grad():
        handle = model.get_decoder().register_forward_pre_hook(
            lambda _m, _a, kwargs: caught.update(kwargs), with_kwargs=True
        )
        model(**batch(name, rows[0]), use_audio_in_video=True)
        [video] = session.videos
    handle.remove()
    sound = [at for at, token in enumerate(rows[0].ids) if token == AUDIO]
    assert caught["inputs_embeds"].shape[1] == len(rows[0].ids) - video.merge.inputs + video.merge.outputs
    left = caught["inputs_embeds"][0]
    places = [int((left == whole.embeds[at]).all(-1).nonzero()[0, 0]) for at in sound]
    assert places == sorted(places)
    assert torch.equal(caught["position_ids"][-3:, 0, places], whole.positions[-3:, sound])


# the models around the thinker


def around(name: str) -> torch.nn.Module:
    """The whole model without its talker, around the tiny thinker."""
    thinker = build(name, vocab_size=VOCABULARY)
    config, whole = OMNI[name]
    config = config(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    with torch.device("meta"):
        omni = whole(config)
    omni.thinker = thinker
    if name == "qwen2_5_omni":  # which looks at these also where nothing is said
        omni.speaker_map, omni.talker = {"Chelsie": {}}, SimpleNamespace(codec_pad_token=0)
    return omni.eval()


@pytest.mark.parametrize("name", OMNI)
def test_the_thinker_is_found_in_the_whole_model(name: str):
    omni, inputs = around(name), batch(name, row(name, ("words", 3), ("video", 6), ("words", 4)))
    assert find_model(omni) is omni.thinker
    with METHODS["inner"](omni.thinker):
        want = omni.thinker.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    with METHODS["inner"](omni) as session:
        got = omni.generate(**inputs, generation_mode="text", thinker_max_new_tokens=STEPS, thinker_do_sample=False)
        assert torch.equal(got, want)
        assert session.videos[0].merge.retention < 0.6
    with pytest.raises(TypeError, match=rf"{type(omni).__name__} is more .* pass its part, model\.thinker"):
        Pipeline(omni, None)


@pytest.mark.parametrize("name", OMNI)
def test_speech_about_a_compressed_video_is_refused(name: str):
    omni = around(name)
    video = batch(name, row(name, ("words", 3), ("video", 6), ("words", 4)))
    text = batch(name, row(name, ("words", 5)))
    omni.has_talker = True  # it is asked after the thinker
    if name == "qwen3_omni_moe":
        omni.config.talker_config.speaker_id = {"ethan": 1}
    asked = {"max_new_tokens": 2, "output_hidden_states": True, "return_dict_in_generate": True}
    with METHODS["outer"](omni):
        with pytest.raises(ValueError, match=r"speech is made of one hidden state.*generation_mode='text'"):
            omni.generate(**video)
        held = omni.thinker.generate(**text, **asked).hidden_states[0][0]
        assert held.shape[1] == text["input_ids"].shape[1], "of text alone, nothing is missing"
    with Uncompressed()(omni):
        held = omni.thinker.generate(**video, **asked).hidden_states[0][0]
    assert held.shape[1] == video["input_ids"].shape[1]


@pytest.mark.parametrize("name", OMNI)
def test_a_checkpoint_of_the_whole_model(name: str, tmp_path: Path):
    omni = around(name)
    checkpoint(name, tmp_path / "thinker")
    processor(name, tmp_path / "whole")
    omni.save_pretrained(tmp_path / "whole")
    frames = np.random.default_rng(0).integers(0, 256, (8, 60, 80, 3), dtype=np.uint8)
    said = []
    for part in ("thinker", "whole"):
        pipeline = Pipeline.from_pretrained(tmp_path / part, device="cpu")
        assert type(pipeline.model) is type(omni.thinker)
        said.append(pipeline.ask(Clip.from_frames(frames), "What?", METHODS["outer"], max_new_tokens=STEPS).as_dict())
    assert said[0]["answer"] == said[1]["answer"]
    assert said[0]["cost"] == said[1]["cost"]
    write_mp4(frames, tmp_path / "film.mp4")
    chosen = ["--method", "holitom:retention=0.25,layer=none", "--max-new-tokens", STEPS, "--frames", 8]
    words = ["caption", tmp_path / "film.mp4", "--question", "What?", "--out", tmp_path / "out.jsonl", *chosen]
    result = CliRunner().invoke(app, [*map(str, words), "--model", str(tmp_path / "whole"), "--workers", "0"])
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))
    asked = Pipeline.from_pretrained(tmp_path / "whole", device="cpu").ask(
        tmp_path / "film.mp4", "What?", METHODS["outer"], frames=8, max_new_tokens=STEPS
    )
    assert told["answer"] == asked.text
    assert told["visual_tokens_out"] == asked.summary.visual_tokens[1]
    assert ModelShape.from_config(omni.config) == ModelShape.from_config(omni.thinker.config)


@pytest.mark.parametrize("name", OMNI)
def test_frames_are_made_as_small_as_the_processor_makes_them(name: str, tmp_path: Path):
    """By the limits of the processor, which are not those of its video processor."""
    processor(name, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_omni"}')
    preprocessor = Preprocessor.from_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 1000, 1200, 3), dtype=np.uint8)
    small = np.stack([preprocessor.shrink(frame, 2) for frame in frames])
    assert 100_000 < small[0, ..., 0].size < 800_000
    ours, theirs = (preprocessor("What?", Clip.from_frames(given)) for given in (small, frames))
    assert torch.equal(ours["pixel_values_videos"], theirs["pixel_values_videos"])
