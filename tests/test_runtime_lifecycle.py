"""On and off: everything is restored, whatever happened in between."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from models import VIDEO, llava_onevision, padded, prompt, video, words
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from holitom import HoliTom
from holitom.methods import parse
from holitom.runtime import Session
from holitom.runtime.cache import memory_of
from holitom.runtime.prefix import hold

METHOD = HoliTom(retention=0.2)


def inputs(frames=6, **kwargs):
    return {**padded([prompt(frames)]), "pixel_values_videos": video(frames), **kwargs}


def generate(model, steps=4, **kwargs):
    return model.generate(**{**inputs(), "max_new_tokens": steps, "do_sample": False, **kwargs})[:, -steps:].tolist()


def fingerprint(model):
    """Everything on a model and in transformers' table that a session could have left changed."""
    model(**inputs())  # transformers installs lazy hooks of its own at the first call
    hooks = {
        name: (list(module._forward_pre_hooks), list(module._forward_hooks)) for name, module in model.named_modules()
    }
    own = {name: sorted(module.__dict__) for name, module in model.named_modules()}
    return hooks, own, dict(ALL_ATTENTION_FUNCTIONS._local_mapping), dict(ALL_ATTENTION_FUNCTIONS.items())


@pytest.fixture
def model():
    return llava_onevision()


def test_nothing_is_left_behind(model):
    before, plain = fingerprint(model), generate(model)
    with METHOD(model):
        assert generate(model) != plain
        assert fingerprint(model) != before
    assert fingerprint(model) == before
    assert generate(model) == plain


@pytest.mark.parametrize("text", ["holitom:retention=0.2,layer=2", "prunevid", "earlytom", "tome|spread", "renewal"])
def test_tensors_go_without_the_garbage_collector(model, text):
    """A KV cache in a cycle stays until Python looks for cycles, which can be thousands of calls later."""
    method = parse(text)

    @torch.no_grad()
    def use():
        with method(model) as session:
            generate(model)
            out = model(**inputs(), use_cache=True)
            copy.deepcopy(out.past_key_values)
            session.summary()
            with pytest.raises(IndexError):
                model(input_ids=torch.full((1, 1), 10**6))
            with method(model) as other:
                asked = hold(other, {name: value for name, value in inputs().items() if name != "attention_mask"})
            del asked

    use()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        use()
        gc.collect()
        left = [each for each in gc.garbage if type(each) is torch.Tensor]  # none of what the compiler forgets
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left


@pytest.mark.parametrize("failing", ["encoder", "layer", "method", "user"])
def test_nothing_is_left_behind_after_an_exception(model, failing):
    before, plain = fingerprint(model), generate(model)

    def fail(*_):
        raise KeyError("broken on purpose")

    class Broken(HoliTom):
        def merge_video(self, video):
            fail()

    method = Broken() if failing == "method" else METHOD
    handle = None
    if failing == "encoder":
        handle = model.model.vision_tower.register_forward_pre_hook(fail)
    if failing == "layer":
        handle = model.get_decoder().layers[2].register_forward_pre_hook(fail)

    def use():
        with method(model):
            generate(model)
            fail()

    with pytest.raises(KeyError, match="on purpose"):
        use()
    if handle is not None:
        handle.remove()
    assert fingerprint(model) == before
    assert generate(model) == plain


def test_a_session_goes_on_after_a_failed_call(model):
    with METHOD(model):
        want = generate(model)
        handle = model.get_decoder().layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model)
        handle.remove()
        assert generate(model) == want


def test_the_innermost_of_nested_sessions_works(model):
    other = HoliTom(retention=0.5, layer=None)
    with METHOD(model):
        outer = generate(model)
    with other(model):
        inner = generate(model)
    assert inner != outer
    with METHOD(model) as first:
        assert generate(model) == outer
        with other(model) as second:
            assert generate(model) == inner
            assert second.active
            assert not first.active
        assert generate(model) == outer


def test_attach_and_remove_in_any_order(model):
    before, plain = fingerprint(model), generate(model)
    first = METHOD.attach(model)
    second = HoliTom(retention=0.5).attach(model)
    first.remove()
    assert generate(model) != plain
    second.remove()
    second.remove()
    assert fingerprint(model) == before
    with METHOD(model) as session:
        want = generate(model)
        with pytest.raises(RuntimeError, match="already attached"):
            session.attach()
    with METHOD(model):
        assert generate(model) == want


def test_text_alone_is_untouched(model):
    ids = padded([words(9), words(4, 2)])
    with torch.no_grad():
        want = model(**ids).logits
        with METHOD(model) as session:
            assert torch.equal(model(**ids).logits, want)
            assert session.videos == []


def test_a_summary_belongs_to_the_latest_prompt(model):
    with METHOD(model) as session:
        generate(model)
        assert session.videos[0].frames == 6
        model.generate(**padded([prompt(4)]), pixel_values_videos=video(4), max_new_tokens=1)
        assert session.videos[0].frames == 4


def test_a_summary_adds_up(model):
    with METHOD(model) as session:
        with pytest.raises(RuntimeError, match="nothing to sum up yet"):
            session.summary()
        out = model.generate(**inputs(), max_new_tokens=1, return_dict_in_generate=True)
        summary = session.summary()
    full, entering, leaving = summary.visual_tokens
    assert (full, entering, leaving) == tuple(session.videos[0].tokens_by_stage)
    assert summary.segments == len(session.videos[0].merge.spans)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    assert summary.cost.compressed.kv_cache_bytes == held
    assert summary.as_dict()["visual_tokens"]["full"] == 97
    assert str(summary).startswith(f"holitom: 97 visual tokens, {entering} enter the LLM, {leaving} leave it")


def test_threads_on_different_models():
    models = [llava_onevision(seed=seed) for seed in range(3)]
    want = []
    for model in models:
        with METHOD(model):
            want.append(generate(model))
    got: dict[int, list] = {}

    def work(number: int) -> None:
        for _ in range(3):
            with METHOD(models[number]):
                got[number] = generate(models[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[number] for number in range(3)] == want
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_what_is_remembered_dies_with_the_cache(model):
    with METHOD(model):
        out = model.generate(**inputs(), max_new_tokens=2, return_dict_in_generate=True)
        cache, memory = weakref.ref(out.past_key_values), weakref.ref(memory_of(out.past_key_values))
        del out
        gc.collect()
        assert cache() is None
        assert memory() is None


def test_a_session_does_not_keep_its_model_alive():
    model = llava_onevision()
    alive = weakref.ref(model)
    with METHOD(model):
        generate(model)
    del model
    gc.collect()
    assert alive() is None


# what cannot be done says so


def test_unknown_models_are_refused():
    with pytest.raises(TypeError, match=r"no adapter for Linear.*LlavaOnevisionForConditionalGeneration.*CONTRIBUTING"):
        METHOD(torch.nn.Linear(2, 2))


def test_layers_that_do_not_exist_are_refused(model):
    with pytest.raises(ValueError, match=r"layer=40 means decoder layer 40; this model can merge at 1\.\.3"):
        HoliTom(layer=40)(model)


def test_wrong_positions_are_refused(model):
    with pytest.raises(ValueError, match="'compact' or 'original', got 'rope'"):
        Session(METHOD, model, positions="rope")


def test_chunked_prefill_is_refused(model):
    with METHOD(model), pytest.raises(ValueError, match="prefill_chunk_size"):
        generate(model, prefill_chunk_size=40)


def test_placeholders_without_pixels_are_refused(model):
    with METHOD(model), pytest.raises(ValueError, match="97 video placeholder tokens, but the videos encoded"):
        model.generate(**padded([prompt(6)]), max_new_tokens=2)


@pytest.mark.parametrize("how", ["forward", "generate"])
def test_a_video_beside_embeddings_is_refused(model, how):
    given = inputs()
    embeds = model.get_input_embeddings()(given.pop("input_ids")).detach()
    with METHOD(model) as session:
        with pytest.raises(ValueError, match="only token ids say where it stands in the prompt: give input_ids"):
            model(inputs_embeds=embeds, **given) if how == "forward" else model.generate(inputs_embeds=embeds, **given)
        assert generate(model) == generate(model)
        assert session.videos
    with torch.no_grad():
        assert model(inputs_embeds=embeds, **given).logits.shape[1] == embeds.shape[1]


def test_labels_of_a_prompt_that_gets_shorter_are_refused(model):
    given = inputs()
    with METHOD(model), pytest.raises(ValueError, match="labels= have one entry for each token of the full prompt"):
        model(**given, labels=given["input_ids"])
    with torch.no_grad(), HoliTom(retention=1.0, layer=None)(model):
        loss = model(**given, labels=given["input_ids"]).loss
    with torch.no_grad():
        assert loss == model(**given, labels=given["input_ids"]).loss


def test_a_batch_of_another_size_on_a_kept_cache_is_refused(model):
    with METHOD(model):
        out = model.generate(**inputs(), max_new_tokens=2, return_dict_in_generate=True)
        with pytest.raises(ValueError, match="holds 1 compressed prompts, but the batch now has 2"):
            model(input_ids=torch.tensor([[5], [6]]), past_key_values=out.past_key_values)


def test_video_tokens_in_the_question_are_counted_as_such(model):
    ids = padded([[*prompt(6), VIDEO]])
    with METHOD(model), pytest.raises(ValueError, match=r"do not match|placeholder"):
        model.generate(**ids, pixel_values_videos=video(6), max_new_tokens=2)
