"""What a call may bring: encoder outputs in other containers, masks of its own, windows, dtypes, unknown costs."""

from __future__ import annotations

import copy

import pytest
import torch
from families import batch, build, row, words
from models import llava_onevision, padded, prompt, video
from transformers.modeling_outputs import BaseModelOutputWithPooling

from holitom import HoliTom
from holitom.methods.chain import Chain
from holitom.methods.dycoke import DyCoke
from holitom.methods.evs import EVS
from holitom.methods.fastv import FastV
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.methods.renewal import Renewal
from holitom.models.base import VideoLayout
from holitom.runtime import encoder
from holitom.runtime.attention import attention_received
from holitom.runtime.locate import locate

OUTER, INNER = HoliTom(retention=0.25, layer=None), HoliTom(retention=0.3, layer=2)


@pytest.fixture(scope="module")
def model():
    return llava_onevision()


def pixels(frames=6, seed=0):
    return {**padded([prompt(frames, seed=seed)]), "pixel_values_videos": video(frames, seed=seed)}


# encoder outputs


def rebuilt(output, **changes):
    """The same tensors in another object, as accelerate's hooks make it."""
    return type(output)(**{**dict(output.items()), **changes})


@torch.inference_mode()
def test_layouts_follow_the_tensors_into_another_object(model):
    first, second = pixels(seed=0), pixels(seed=1)
    with OUTER(model) as session:
        want = model(**first).logits
        scores = session.videos[0].scores
        output = model.model.get_video_features(first.pop("pixel_values_videos"), return_dict=True)
        model(**second)  # another video comes in between
        for encoded in (output, rebuilt(output)):
            assert torch.equal(model(**first, mm_encoder_outputs={"video": encoded}).logits, want)
            assert torch.equal(session.videos[0].scores, scores)
        tokens = model.generate(**first, mm_encoder_outputs={"video": rebuilt(output)}, max_new_tokens=2)
        assert torch.equal(tokens, model.generate(**pixels(seed=0), max_new_tokens=2))


@torch.inference_mode()
def test_lists_of_videos_may_be_picked_from():
    name = "qwen2_5_vl"
    model, rows = build(name), [row(name, ("words", 3), ("video", 6, seed), ("words", 4)) for seed in (0, 2)]
    both = batch(name, *rows)
    with OUTER(model):
        want = [model(**batch(name, each)).logits for each in rows]
        output = model.model.get_video_features(both["pixel_values_videos"], both["video_grid_thw"], return_dict=True)
        for number, each in enumerate(rows):
            alone = batch(name, each)
            del alone["pixel_values_videos"]
            picked = rebuilt(output, pooler_output=[output.pooler_output[number]])
            got = model(**alone, mm_encoder_outputs={"video": picked}).logits
            torch.testing.assert_close(got, want[number], atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["before the session", "other tensors", "a part"])
@torch.inference_mode()
def test_encoder_outputs_of_unknown_layout_are_refused(model, how):
    given = pixels()
    clip = given.pop("pixel_values_videos")
    if how == "before the session":
        output = model.model.get_video_features(clip, return_dict=True)
    with OUTER(model):
        model(**pixels(seed=1))
        if how != "before the session":
            output = model.model.get_video_features(clip, return_dict=True)
            output = rebuilt(output, pooler_output=output.pooler_output * 1.0)
        for call in (model, lambda **inputs: model.generate(**inputs, max_new_tokens=2)):
            with pytest.raises(ValueError, match=r"97 video placeholder tokens, but .* not known: give the pixels"):
                call(**given, mm_encoder_outputs={"video": output})


@torch.inference_mode()
def test_beams_of_moved_encoder_outputs(model):
    """accelerate moves tensors, generate() repeats them: within generate() they are those of its own videos."""
    moved = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, _cloned(kwargs)), with_kwargs=True, prepend=True
    )
    many = {"max_new_tokens": 3, "num_beams": 2, "do_sample": False}
    with INNER(model):
        got = model.generate(**pixels(), **many)
        moved.remove()
        assert torch.equal(got, model.generate(**pixels(), **many))


def _cloned(kwargs):
    encoded = kwargs.get("mm_encoder_outputs") or {}
    return {
        **kwargs,
        "mm_encoder_outputs": {
            name: output and BaseModelOutputWithPooling(pooler_output=output.pooler_output.clone())
            for name, output in encoded.items()
        },
    }


@torch.inference_mode()
def test_only_chunks_are_called_chunks(model):
    with OUTER(model):
        with pytest.raises(ValueError, match="leave it unset"):
            model.generate(**pixels(), prefill_chunk_size=40, max_new_tokens=2)
        given = padded([[*prompt(6), *prompt(6)]])
    marked = given["input_ids"] == model.config.video_token_id
    with pytest.raises(ValueError, match="have 160: give the ids and the pixels of the same videos, all of them"):
        locate(marked, [VideoLayout.contiguous(10, (4, 4))])


# masks


@torch.inference_mode()
def test_a_mask_of_ones_own_is_refused_and_text_goes_through(model):
    given = pixels()
    length = given["input_ids"].shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    with OUTER(model):
        for mask in (causal, {"full_attention": causal}):
            with pytest.raises(ValueError, match=r"attention mask of its own.*give a 2-D mask"):
                model(**{**given, "attention_mask": mask})
        kept = model(**given, use_cache=True).past_key_values
        for count in (1, 3):
            mine = torch.ones(1, 1, count, length + count, dtype=torch.bool)
            with pytest.raises(ValueError, match="give a 2-D mask"):
                model(input_ids=torch.tensor([words(count)]), attention_mask=mine, past_key_values=copy.deepcopy(kept))
        text, packed = torch.tensor([words(6)]), torch.eye(6, dtype=torch.bool)[None, None]
        got = model(input_ids=text, attention_mask=packed).logits
    assert torch.equal(got, model(input_ids=text, attention_mask=packed).logits)


# decoders whose layers do not see everything


@pytest.mark.parametrize("window", [{"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}])
def test_an_inner_stage_behind_a_sliding_window_is_refused_by_the_config(window):
    model = build("llava_onevision", **window)
    with pytest.raises(ValueError, match=r"mixes attention with other kinds of layers \(sliding_attention\)"):
        HoliTom(layer=2)(model)
    with OUTER(model) as session, torch.inference_mode():
        model(**batch("llava_onevision", row("llava_onevision", ("words", 3), ("video", 6), ("words", 4))))
    assert session.videos


def test_a_window_that_only_the_config_names_is_seen(model):
    other = copy.deepcopy(model)
    config = other.get_decoder().config
    config.layer_types, config.sliding_window, config.use_sliding_window = None, 8, True
    with pytest.raises(ValueError, match="sliding_attention"):
        FastV(layer=2)(other)
    config.use_sliding_window = False
    FastV(layer=2)(other)


# the default dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("method", [OUTER, INNER, PyramidDrop(), DyCoke(), EVS()], ids=lambda method: method.name)
@torch.inference_mode()
def test_the_default_dtype_changes_nothing(model, method, dtype):
    given = pixels()
    with method(model) as session:
        want, kept = model(**given).logits, session.videos[0].merge.anchor
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(model(**given).logits, want)
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(session.videos[0].merge.anchor, kept)


@pytest.mark.parametrize("method", [OUTER, INNER, Chain.of(Renewal(change=0.5), OUTER)], ids=lambda method: method.name)
@torch.inference_mode()
def test_the_default_device_changes_nothing(model, method):
    given = pixels()
    with method(model):
        want = model(**given).logits
        with torch.device("meta"):  # what is made without a device computes nothing
            assert torch.equal(model(**given).logits, want)


# autocast


@pytest.mark.parametrize("method", [OUTER, INNER, Chain.of(Renewal(change=0.5), OUTER)], ids=lambda method: method.name)
@torch.inference_mode()
def test_a_session_under_autocast_chooses_in_full_precision(model, method, monkeypatch):
    """Autocast changes what the model computes, and nothing of what is chosen by it."""
    read, seen = [], []

    def received(*args):
        read.append((args, attention_received(*args)))
        return read[-1][1]

    def merge_video(self, tokens):
        seen.append((self, tokens, choose(self, tokens)))
        return seen[-1][2]

    choose = HoliTom.merge_video
    monkeypatch.setattr(encoder, "attention_received", received)
    monkeypatch.setattr(HoliTom, "merge_video", merge_video)
    with torch.autocast("cpu", torch.bfloat16), method(model) as session:
        model(**pixels())
        assert session.videos[0].merge.outputs < session.videos[0].merge.inputs
    assert read
    for args, scores in read:
        assert torch.equal(attention_received(*args), scores)
    for chosen, tokens, merge in seen:
        again = choose(chosen, tokens)
        assert torch.equal(again.target, merge.target)
        assert torch.equal(again.weight, merge.weight)


# families whose costs are not known


@torch.inference_mode()
def test_a_summary_without_costs(model):
    with OUTER(model) as session:
        model(**pixels())
        model.config.model_type, known = "unheard_of", model.config.model_type
        try:
            summary = session.summary()
            pictured = session._repr_html_()
        finally:
            model.config.model_type = known
        assert session.summary().cost is not None
    assert summary.cost is None
    assert summary.as_dict()["cost"] is None
    assert "not known" in str(summary)
    assert "visual tokens into the LLM" in pictured
