"""Every family: ways to generate agree with each other and with a computation by hand, and leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from families import FAMILIES, IMAGE, PAD, VIDEO, Row, batch, build, model_of, row, three_rows, token_types, words
from family_reference import by_hand, continue_by_hand, shortened, whole_prompt
from matrix import some
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from holitom import HoliTom

STEPS = 3
OUTER = HoliTom(retention=0.25, layer=None)
INNER = HoliTom(retention=0.3, layer=3)
METHODS = {"outer": OUTER, "inner": INNER}
CASES = [(name, method) for name, family in FAMILIES.items() for method in METHODS if family.inner or method == "outer"]
HALF = ("bfloat16", "float16")
STATEFUL = ("lfm3_vl", "qwen3_5", "qwen3_5_moe")  # convolutions and linear attention run over padding too
FLAT_LATER = ("qwen2_5_omni", "qwen3_omni_moe")  # videos after turns have one axis, in transformers 5.24 itself
MODES = {
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "two answers": {"num_return_sequences": 2, "do_sample": True, "top_k": 1},
}


REFUSED = {  # by transformers itself, with or without a session
    ("qwen3_5", "prompt lookup"): "not supported with stateful models",
    ("qwen3_5_moe", "prompt lookup"): "not supported with stateful models",
    # 5.23 counts video tokens where GLM uses image tokens, so it cannot repeat its prompts
    **{(glm, "two answers"): "expected a non-empty list" for glm in ("glm4v", "glm4v_moe", "glm46v")},
    **{(glm, "beams"): "expected a non-empty list" for glm in ("glm4v", "glm4v_moe", "glm46v")},
}


def one_row(name):
    return row(name, ("words", 3), ("video", 6), ("words", 5, 1))


def generate(model, name, rows, steps=STEPS, **kwargs):
    inputs = batch(name, *rows)
    never = [VIDEO, IMAGE]  # a random model may say one, which stands for a video that is not there
    out = model.generate(**inputs, **{"max_new_tokens": steps, "do_sample": False, "suppress_tokens": never, **kwargs})
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(("name", "method", "mode"), some([(*case, mode) for case in CASES for mode in MODES], 4))
def test_ways_to_generate_agree(name, method, mode):
    model, rows = model_of(name), three_rows(name)[:1]
    if (name, mode) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, mode]):
            generate(model, name, rows, **MODES[mode])
        return
    with METHODS[method](model):
        want = generate(model, name, rows, steps=5)
        got = generate(model, name, rows, steps=5, **MODES[mode])
    assert got == want * len(got)


@pytest.mark.parametrize(("name", "method"), some(CASES, 2))
def test_seeded_sampling_repeats_itself(name, method):
    model, rows = model_of(name), three_rows(name)
    with METHODS[method](model):
        runs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            runs.append(generate(model, name, rows, do_sample=True, temperature=3.0))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize(("name", "method"), some(CASES, 2, turn=1))
def test_the_score_of_a_beam_is_what_its_tokens_score_by_hand(name, method):
    model, eager, one = model_of(name), model_of(name, "eager"), one_row(name)
    if (name, "beams") in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, "beams"]):
            generate(model, name, [one], num_beams=3)
        return
    with METHODS[method](model) as session:
        inputs = batch(name, one)
        beams = model.generate(
            **inputs, num_beams=3, max_new_tokens=4, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
        answer = beams.sequences[0, len(one.ids) :].tolist()
        _, logits = by_hand(eager, name, one, session.prompts[0].videos, METHODS[method], 4, forced=answer)
    total = sum(float(row.log_softmax(-1)[token]) for row, token in zip(logits, answer, strict=True))
    assert float(beams.sequences_scores[0]) * len(answer) == pytest.approx(total, abs=2e-3)


@pytest.mark.parametrize(("name", "method", "ids"), some([(*case, ids) for case in CASES for ids in ("all", "new")], 4))
def test_a_second_question_on_a_kept_cache(name, method, ids):
    model, eager, one, question = model_of(name), model_of(name, "eager"), one_row(name), words(6, 9)
    kept = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with METHODS[method](model) as session:
        first = model.generate(**batch(name, one), **kept)
        videos = session.prompts[0].videos
        history = [*first.sequences[0].tolist(), *question]
        given = history if ids == "all" else history[first.past_key_values.get_seq_length() :]
        second = model.generate(
            input_ids=torch.tensor([given]),
            attention_mask=torch.ones(1, len(history), dtype=torch.long),
            past_key_values=first.past_key_values,
            **kept,
        )
    answer = second.sequences[0, -3:].tolist()
    assert second.sequences[0, :-3].tolist() == given
    if method == "outer":  # an inner stage decides once for each video, by the question it was asked with
        said = history[len(one.ids) :]
        _, logits = by_hand(eager, name, one, videos, OUTER, len(said) + 3, forced=[*said, *answer])
        assert logits[len(said) :].argmax(-1).tolist() == answer


@pytest.mark.parametrize(("name", "method"), some(CASES, 2))
def test_a_video_after_turns_of_text(name, method):
    """The cache holds uncompressed text when the first video comes: of two rows, one is padded."""
    model, eager = model_of(name), model_of(name, "eager")
    texts = [row(name, ("words", 9, 2)), row(name, ("words", 5, 3))]
    asked = [row(name, ("words", 3, seed), ("video", 6, 2 * seed), ("words", 4, 1)) for seed in (4, 5)]
    kept = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    chosen = replace(METHODS[method], exact=name in STATEFUL)
    with chosen(model) as session:
        first = model.generate(**batch(name, *texts), **kept, suppress_tokens=[VIDEO, IMAGE])
        inputs = batch(name, *asked)
        mask = batch(name, *texts)["attention_mask"]
        inputs["input_ids"] = torch.cat([first.sequences, inputs["input_ids"]], 1)
        inputs["attention_mask"] = torch.cat([mask, torch.ones(2, 3, dtype=torch.long), inputs["attention_mask"]], 1)
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = token_types(name, inputs["input_ids"])
        second = model.generate(**inputs, past_key_values=first.past_key_values, **kept)
        prompts = session.prompts
    for number, (text, question) in enumerate(zip(texts, asked, strict=True)):
        said = first.sequences[number, -3:].tolist()
        before = len(text.ids) + 3
        full = Row(
            [*text.ids, *said, *question.ids],
            question.pieces,
            [[before + column for column in columns] for columns in question.videos],
        )
        whole = whole_prompt(eager, name, full)
        if name in FLAT_LATER:
            whole.positions = torch.arange(len(full.ids)).expand(3, -1)
        want, _ = continue_by_hand(eager, shortened(whole, full, prompts[number].videos), chosen, 3)
        assert second.sequences[number, -3:].tolist() == want


def test_a_state_that_runs_over_padding_takes_rows_of_one_length():
    """Of two rows that keep different numbers of tokens, one would be padded in the middle of its cache."""
    name = "lfm3_vl"
    model = model_of(name)
    asked = [row(name, ("words", 3, seed), ("video", 6, 2 * seed), ("words", 4, 1)) for seed in (4, 5)]
    with OUTER(model) as session:
        model(**batch(name, *asked))
        assert len({prompt.by_layer[0] for prompt in session.prompts}) == 2
        texts = batch(name, row(name, ("words", 9, 2)), row(name, ("words", 9, 3)))
        cache = model(**texts, use_cache=True).past_key_values
        with pytest.raises(ValueError, match=r"rows of a further turn must be of one length.*exact=True"):
            model(**batch(name, *asked), past_key_values=cache)


@pytest.mark.parametrize(("name", "method", "kind"), some([(*case, kind) for case in CASES for kind in HALF], 4))
def test_half_precision(name, method, kind):
    dtype = getattr(torch, kind)
    model, rows = build(name).to(dtype), three_rows(name)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch(name, *rows).items()}
    with METHODS[method](model) as session:
        out = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    assert out.shape[1] == inputs["input_ids"].shape[1] + STEPS
    assert len(session.videos) == 3
    assert all(video.merge.retention < 0.6 for video in session.videos)


def fingerprint(model, name):
    """Everything on a model and in transformers' table that a session could leave changed."""
    with torch.no_grad():
        model(**batch(name, one_row(name)))  # transformers installs lazy hooks of its own at the first call
    hooks = {
        part: (list(module._forward_pre_hooks), list(module._forward_hooks)) for part, module in model.named_modules()
    }
    own = {part: sorted(module.__dict__) for part, module in model.named_modules()}
    return hooks, own, dict(ALL_ATTENTION_FUNCTIONS._local_mapping), dict(ALL_ATTENTION_FUNCTIONS.items())


@pytest.mark.parametrize(("name", "failing"), some(product(FAMILIES, (None, "tower", "decoder", "user")), 4))
def test_nothing_is_left_behind(name, failing):
    model, rows = model_of(name), three_rows(name)[:1]
    before, plain = fingerprint(model, name), generate(model, name, rows)

    def fail(*_):
        raise KeyError("on purpose")

    def use():
        with METHODS["inner" if FAMILIES[name].inner else "outer"](model):
            assert fingerprint(model, name) != before
            handle = None
            if failing == "tower":
                base = model.base_model
                tower = next(
                    getattr(base, part)
                    for part in ("visual", "video_tower", "vision_tower", "vision_model")
                    if hasattr(base, part)
                )
                handle = tower.register_forward_pre_hook(fail)
            if failing == "decoder":
                handle = model.get_decoder().layers[-1].register_forward_pre_hook(fail)
            try:
                generate(model, name, rows)
            finally:
                if handle is not None:
                    handle.remove()
            if failing == "user":
                fail()

    if failing is None:
        use()
    else:
        with pytest.raises(KeyError, match="on purpose"):
            use()
    assert fingerprint(model, name) == before
    assert generate(model, name, rows) == plain


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_is_no_token(name):
    """A row's answer does not depend on how far it is padded."""
    model, rows = model_of(name), three_rows(name)
    with OUTER(model):
        inputs = batch(name, rows[0])
        longer = {**inputs}
        for key, fill in (("input_ids", PAD), ("attention_mask", 0), ("mm_token_type_ids", 0)):
            if key in inputs:
                longer[key] = torch.nn.functional.pad(inputs[key], (7, 0), value=fill)
        want = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[:, -STEPS:]
        got = model.generate(**longer, max_new_tokens=STEPS, do_sample=False)[:, -STEPS:]
    assert torch.equal(got, want)
