"""What a compressed KV cache remembers goes where the cache goes: through copies, rows, crops, sessions."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from families import FAMILIES, PAD, batch, model_of, row, words
from matrix import some
from transformers import DynamicCache

from holitom import HoliTom
from holitom.methods.fastv import FastV
from holitom.runtime import Session

OUTER, INNER = HoliTom(retention=0.25, layer=None), HoliTom(retention=0.3, layer=3)
METHODS = {"outer": OUTER, "inner": INNER}
CASES = [(name, method) for name, family in FAMILIES.items() for method in METHODS if family.inner or method == "outer"]
HOWS = ("deepcopy", "pickle", "outliving")
FEW = [case for case in CASES if case[0] in ("llava_onevision", "qwen2_5_vl", "qwen3_5", "gemma4")]


def one(name, seed=0, frames=6):
    return row(name, ("words", 3, seed), ("video", frames, seed), ("words", 5, 1))


def read(model, name, *rows):
    """The KV cache of a prompt."""
    return model(**batch(name, *(rows or [one(name)])), use_cache=True).past_key_values


def ask(model, kept, question, rows=1):
    """Logits (rows, Q, vocabulary) of a question in one call on a kept cache."""
    return model(input_ids=torch.tensor([question] * rows), past_key_values=kept, use_cache=True).logits


@pytest.mark.parametrize(("name", "method", "how"), some([(*case, how) for case in CASES for how in HOWS], 6))
@torch.inference_mode()
def test_a_copy_goes_on_as_the_original_does(name, method, how):
    """transformers' way to share a prefix: read once, copied for each question; another video comes in between."""
    model, first, second = model_of(name), words(4, 9), words(3, 11)
    with METHODS[method](model):
        kept = read(model, name)
        want = [ask(model, kept, first), ask(model, kept, second)]
        kept = read(model, name)
        if how == "deepcopy":
            kept = copy.deepcopy(kept)
        if how == "pickle":
            kept = pickle.loads(pickle.dumps(kept))
        model(**batch(name, one(name, 3)))
    with METHODS[method](model):
        other = copy.deepcopy(kept)
        for each in (kept, other):
            got = [ask(model, each, first), ask(model, each, second)]
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(("name", "method", "ids"), some([(*case, ids) for case in CASES for ids in ("all", "new")], 4))
def test_a_session_for_each_turn(name, method, ids):
    """Three turns, in one session or in one each: the same tokens."""
    model, kept = model_of(name), {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    inputs, questions = batch(name, one(name)), [words(6, 9), words(4, 11)]

    def talk(session_of):
        with session_of():
            out = model.generate(**inputs, **kept)
        history, said = out.sequences[0].tolist(), []
        for question in questions:
            past = out.past_key_values
            history += question
            given = history if ids == "all" else history[past.get_seq_length() :]
            with session_of():
                out = model.generate(
                    input_ids=torch.tensor([given]),
                    attention_mask=torch.ones(1, len(history), dtype=torch.long),
                    past_key_values=past,
                    **kept,
                )
            said.append(out.sequences[0, -3:].tolist())
            history += said[-1]
        return said

    from contextlib import nullcontext

    with METHODS[method](model):
        want = talk(nullcontext)
    assert talk(lambda: METHODS[method](model)) == want


@pytest.mark.parametrize(("name", "method"), FEW)
@torch.inference_mode()
def test_rows_of_a_cache(name, method):
    """Two prompts of unequal length; their rows are swapped, repeated and picked."""
    if name == "qwen3_5":
        pytest.skip("transformers repeats no states of linear attention")
    model, question = model_of(name), words(4, 9)
    rows = [one(name), row(name, ("words", 9, 2), ("video", 6, 2), ("words", 3, 4))]
    with METHODS[method](model):
        want = ask(model, read(model, name, *rows), question, rows=2)
        kept = read(model, name, *rows)
        kept.reorder_cache(torch.tensor([1, 0]))
        torch.testing.assert_close(ask(model, kept, question, rows=2), want[[1, 0]], atol=1e-5, rtol=0)
        if name == "gemma4":
            return  # layers that share keys and values cannot be repeated
        kept = read(model, name, *rows)
        kept.batch_repeat_interleave(2)
        torch.testing.assert_close(ask(model, kept, question, rows=4), want[[0, 0, 1, 1]], atol=1e-5, rtol=0)
        kept = read(model, name, *rows)
        kept.batch_select_indices(torch.tensor([1]))
        torch.testing.assert_close(ask(model, kept, question), want[1:], atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="holds 1 compressed prompts, but the batch now has 2 rows"):
            ask(model, kept, question, rows=2)


@pytest.mark.parametrize(("name", "method"), [case for case in FEW if case[0] in ("llava_onevision", "qwen2_5_vl")])
@torch.inference_mode()
def test_text_is_cropped_and_videos_are_not(name, method):
    model, first, second = model_of(name), words(4, 9), words(3, 11)
    with METHODS[method](model):
        kept = read(model, name)
        want = ask(model, kept, second)
        kept = read(model, name)
        length = kept.get_seq_length()
        ask(model, kept, first)
        kept.crop(-len(first))
        assert kept.get_seq_length() == length == len(one(name).ids)
        assert torch.equal(ask(model, kept, second), want)
        with pytest.raises(ValueError, match=r"cannot crop 20 tokens off this KV cache: [89] follow its last"):
            kept.crop(-20)


@torch.inference_mode()
def test_prompt_lookup_on_a_kept_cache():
    """Candidates are cropped again; new ids alone (with all ids transformers itself goes wrong)."""
    name = "qwen2_5_vl"
    model, question = model_of(name), [*words(6, 9), *words(6, 9)]
    history, said = [*one(name).ids, *question], []
    for more in ({}, {"prompt_lookup_num_tokens": 3}):
        with INNER(model):
            kept = read(model, name)
            new = {"input_ids": torch.tensor([question]), "attention_mask": torch.ones(1, len(history)).long()}
            out = model.generate(**new, past_key_values=kept, max_new_tokens=6, do_sample=False, **more)
        said.append(out[0, -6:].tolist())
    assert said[0] == said[1]


@torch.inference_mode()
def test_without_a_session_a_compressed_cache_takes_no_tokens():
    model = model_of("llava_onevision")
    with OUTER(model):
        kept = read(model, "llava_onevision")
        length = kept.get_seq_length(0)
    for cached in (kept, copy.deepcopy(kept)):
        with pytest.raises(RuntimeError, match=r"a video that HoliTom\(.*\) compressed, so only a session of the same"):
            ask(model, cached, words(4))
        with pytest.raises(RuntimeError, match="call the model inside `with HoliTom"):
            model.generate(
                input_ids=torch.tensor([[*one("llava_onevision").ids, *words(4)]]),
                past_key_values=cached,
                max_new_tokens=2,
            )
        assert cached.get_seq_length(0) == length


@torch.inference_mode()
def test_another_methods_inner_stage_cannot_go_on():
    model = model_of("llava_onevision")
    with INNER(model):
        kept = read(model, "llava_onevision")
    for other in (FastV(layer=2), OUTER, HoliTom(retention=0.4, layer=3)):
        with other(model), pytest.raises(ValueError, match="use a session of the same method, or start from a new"):
            ask(model, kept, words(4))
    with OUTER(model):
        kept = read(model, "llava_onevision")
        want = ask(model, copy.deepcopy(kept), words(4))
    with HoliTom(retention=0.4, layer=None)(model):  # nothing of its own happens to these tokens
        assert torch.equal(ask(model, kept, words(4)), want)


@torch.inference_mode()
def test_a_cache_that_is_reset_is_a_new_one():
    model = model_of("llava_onevision")
    with OUTER(model):
        kept = read(model, "llava_onevision")
        kept.reset()
        assert type(kept) is DynamicCache
        assert kept.get_seq_length() == 0
    want = ask(model, DynamicCache(config=model.get_decoder().config), words(4))
    assert torch.equal(ask(model, kept, words(4)), want)


@torch.inference_mode()
def test_a_copied_cache_keeps_its_kind():
    model = model_of("llava_onevision")
    with OUTER(model):
        kept = read(model, "llava_onevision")
    assert isinstance(kept, DynamicCache)
    assert type(kept).__name__ == "DynamicCache"
    assert isinstance(copy.copy(kept), DynamicCache)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
@torch.inference_mode()
def test_original_positions_go_on_in_a_later_session(name):
    model, question = model_of(name), words(4, 9)
    with Session(INNER, model, positions="original"):
        kept = read(model, name)
        want = ask(model, copy.deepcopy(kept), question)
    with Session(INNER, model, positions="original"):
        assert torch.equal(ask(model, kept, question), want)


@torch.inference_mode()
def test_padding_behind_questions_of_a_batch():
    """A further turn in which one row's question is shorter."""
    name, long, short = "llava_onevision", words(5, 9), words(3, 11)
    model = model_of(name)
    rows = [one(name), row(name, ("words", 9, 2), ("video", 6, 2), ("words", 3, 4))]
    with OUTER(model):
        alone = [
            ask(model, read(model, name, each), asked)[0, -1] for each, asked in zip(rows, (long, short), strict=True)
        ]
        before = batch(name, *rows)["attention_mask"]
        mask = torch.cat([before, torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])], 1)
        together = model(
            input_ids=torch.tensor([long, [PAD, PAD, *short]]),
            attention_mask=mask,
            past_key_values=read(model, name, *rows),
        ).logits[:, -1]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
