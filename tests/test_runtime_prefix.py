"""A prefix that is read once, and questions that go on from it: the answers are those of separate prompts."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, IMAGE, PAD, VIDEO, batch, model_of, row, words
from matrix import some

from holitom import HoliTom
from holitom.methods.baselines import Uncompressed, UniformFrames
from holitom.methods.fastv import FastV
from holitom.methods.framefusion import FrameFusion
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.runtime import Session
from holitom.runtime.prefix import hold, resume

STEPS = 5
METHODS = {
    "none": Uncompressed(),
    "outer": HoliTom(retention=0.25, layer=None),
    "inner": HoliTom(retention=0.3, layer=3),
}
CASES = [(name, method) for name, family in FAMILIES.items() for method in METHODS if family.inner or method != "inner"]
OTHERS = {  # every kind of attention that an inner stage may read, several stages, no outer stage
    "fastv": FastV(layer=2),
    "pyramiddrop": PyramidDrop(),
    "framefusion": FrameFusion(),
    "prunevid": PruneVid(retention=0.5),
    "frames and fastv": UniformFrames(retention=0.5) | FastV(layer=2),
}
QUESTIONS = [(5, 1), (9, 2), (2, 3)]  # words and seed


def parts(name, frames=6, seed=0):
    """A prompt's start with a video, and one token behind it, as inputs; and what of it comes after."""
    start = row(name, ("words", 3, seed), ("video", frames, seed), ("words", 2, 9))
    cut = max(column for column, token in enumerate(start.ids) if token in (VIDEO, IMAGE)) + 2
    inputs = batch(name, start)
    wide = {key: value[:, :cut] for key, value in inputs.items() if value.shape[:2] == (1, len(start.ids))}
    return {**inputs, **wide}, start.ids[cut:]


def asked(name, question, frames=6, seed=0):
    return batch(name, row(name, ("words", 3, seed), ("video", frames, seed), ("words", 2, 9), ("words", *question)))


def alone(model, name, session, question, frames=6, seed=0):
    inputs = asked(name, question, frames, seed)
    out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    return out[0, inputs["input_ids"].shape[1] :].tolist(), record_of(session.prompts[0])


def record_of(prompt):
    """Everything that a session tells of one prompt."""
    videos = [(video.merge.anchor.tolist(), video.tokens_by_stage, video.grid) for video in prompt.videos]
    inner = [[stage.merge.anchor.tolist() for stage in video.inner] for video in prompt.videos]
    return prompt.tokens, prompt.by_layer, prompt.visual_by_layer, videos, inner


def together(model, session, prefixes, questions):
    inputs = resume(session, prefixes, questions, PAD)
    out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(("name", "method"), some(CASES, 2))
@torch.inference_mode()
def test_one_reading_serves_all_questions(name, method):
    model = model_of(name)
    with Session(METHODS[method], model) as session:
        want = [alone(model, name, session, question) for question in QUESTIONS]
        inputs, tail = parts(name)
        prefix = hold(session, inputs)
        for question, (answer, record) in zip(QUESTIONS, want, strict=True):
            assert together(model, session, [prefix], [[*tail, *words(*question)]]) == [answer]
            assert record_of(session.prompts[0]) == record


@pytest.mark.parametrize(("name", "method"), some(CASES, 2, turn=1))
@torch.inference_mode()
def test_videos_of_different_lengths_in_one_batch(name, method):
    model = model_of(name)
    with Session(METHODS[method], model) as session:
        prefixes, questions, prompts = [], [], []
        for frames, seed, several in ((4, 0, QUESTIONS[:2]), (8, 2, QUESTIONS[1:2]), (2, 4, QUESTIONS[:1])):
            inputs, tail = parts(name, frames, seed)
            prefix = hold(session, inputs)
            for question in several:
                prompts.append((question, frames, seed))
                prefixes.append(prefix)
                questions.append([*tail, *words(*question)])
        if not prefixes[0].stackable:
            with pytest.raises(ValueError, match="one by one"):
                together(model, session, prefixes, questions)
            return
        answers = together(model, session, prefixes, questions)
        records = [record_of(prompt) for prompt in session.prompts]
        want = [alone(model, name, session, *prompt) for prompt in prompts]
    assert list(zip(answers, records, strict=True)) == want


@pytest.mark.parametrize(("name", "method"), some(CASES, 2, turn=1))
@torch.inference_mode()
def test_forward_goes_on_as_generate_does(name, method):
    model, many = model_of(name), {"output_logits": True, "return_dict_in_generate": True}
    with Session(METHODS[method], model) as session:
        inputs, tail = parts(name)
        prefix = hold(session, inputs)
        for question in QUESTIONS[:2]:
            want = model.generate(**asked(name, question), max_new_tokens=2, do_sample=False, **many).logits
            given = resume(session, [prefix], [[*tail, *words(*question)]], PAD)
            got = model(**given, use_cache=True).logits[:, -1]
            torch.testing.assert_close(got, want[0], atol=1e-4, rtol=1e-4)
            mask = torch.nn.functional.pad(given.pop("attention_mask"), (0, 1), value=1)
            got = model(**{**given, "input_ids": want[0].argmax(-1)[:, None]}, attention_mask=mask).logits[:, -1]
            torch.testing.assert_close(got, want[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize("method", OTHERS)
@torch.inference_mode()
def test_other_inner_stages(name, method):
    model = model_of(name)
    with Session(OTHERS[method], model) as session:
        want = [alone(model, name, session, question)[0] for question in QUESTIONS]
        inputs, tail = parts(name)
        prefix = hold(session, inputs)
        questions = [[*tail, *words(*question)] for question in QUESTIONS]
        assert together(model, session, [prefix] * 3, questions) == want


@torch.inference_mode()
def test_original_positions():
    model = model_of("llava_onevision")
    with Session(METHODS["inner"], model, positions="original") as session:
        want = [alone(model, "llava_onevision", session, question)[0] for question in QUESTIONS]
        inputs, tail = parts("llava_onevision")
        prefix = hold(session, inputs)
        questions = [[*tail, *words(*question)] for question in QUESTIONS]
        assert together(model, session, [prefix] * 3, questions) == want


def held_bytes(prefix) -> int:
    held = [each for layer in prefix.cache.layers for each in vars(layer).values()]
    held += [prefix.unfinished.hidden, *prefix.unfinished.embeddings]
    return sum(each.nbytes for each in held if isinstance(each, torch.Tensor))


@torch.inference_mode()
def test_a_prefix_outlives_what_goes_on_from_it():
    """And holds less than the caches that were made of it: no question changes it."""
    model = model_of("llava_onevision")
    with Session(METHODS["inner"], model) as session:
        inputs, tail = parts("llava_onevision")
        prefix = hold(session, inputs)
        questions = [[*tail, *words(*question)] for question in QUESTIONS]
        size = held_bytes(prefix)
        first = together(model, session, [prefix], questions[:1])
        together(model, session, [prefix] * 3, questions)
        assert together(model, session, [prefix], questions[:1]) == first
        assert held_bytes(prefix) == size


@torch.inference_mode()
def test_an_inner_stage_does_decide_by_the_question():
    """Otherwise these tests would show nothing: what is kept inside differs from question to question."""
    model = model_of("llava_onevision")
    with Session(METHODS["inner"], model) as session:
        inputs, tail = parts("llava_onevision")
        prefix = hold(session, inputs)
        questions = [[*tail, *words(*question)] for question in QUESTIONS]
        together(model, session, [prefix] * 3, questions)
        kept = [prompt.videos[0].inner[0].merge.anchor.tolist() for prompt in session.prompts]
        assert kept[0] != kept[1]


@torch.inference_mode()
def test_what_cannot_be_kept_is_refused():
    model = model_of("llava_onevision")
    with Session(METHODS["outer"], model) as session:
        with pytest.raises(ValueError, match="holds no video"):
            hold(session, batch("llava_onevision", row("llava_onevision", ("words", 4))))
        inputs = parts("llava_onevision")[0]
        with pytest.raises(ValueError, match="one by one"):
            hold(session, {**inputs, "input_ids": inputs["input_ids"].repeat(2, 1)})
        prefix = hold(session, inputs)
        with pytest.raises(ValueError, match="at least one token"):
            resume(session, [prefix], [[]], PAD)
    with pytest.raises(ValueError, match="at work"):
        hold(session, inputs)
