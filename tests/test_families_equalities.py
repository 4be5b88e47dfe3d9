"""Every family: nothing changes at retention 1, and what generate() gives equals what is computed by hand."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, batch, build, model_of, row, three_rows
from family_reference import by_hand, whole_prompt
from matrix import some

from holitom import HoliTom
from holitom.runtime import Session

STEPS = 5
OUTER = HoliTom(retention=0.25, layer=None)
METHODS = {
    "outer": OUTER,
    "exact": HoliTom(retention=0.3, layer=None, exact=True),
    "inner": HoliTom(retention=0.3, layer=3),
    "inner only": HoliTom(retention=1.0, layer=2, inner_retention=0.4),
}
CASES = [
    (family, method)
    for family, spec in FAMILIES.items()
    for method, settings in METHODS.items()
    if spec.inner or settings.layer is None
]


def generate(model, name, rows, steps=STEPS, **kwargs):
    out = model.generate(
        **batch(name, *rows),
        **{"max_new_tokens": steps, "do_sample": False, **kwargs},
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[:, -steps:].tolist(), torch.stack(out.logits, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_retention_one_changes_no_bit(name):
    model, rows = model_of(name), three_rows(name)
    for inputs in (batch(name, rows[0]), batch(name, *rows)):
        with torch.no_grad():
            want = model(**inputs).logits
            with HoliTom(retention=1.0, layer=None)(model) as session:
                got = model(**inputs).logits
        assert torch.equal(got, want)
        assert all(video.merge.outputs == video.merge.inputs for video in session.videos)
        assert session.videos


@pytest.mark.parametrize(("name", "method"), some(CASES, 2))
def test_alone_and_in_a_batch_equal_a_computation_by_hand(name, method):
    model, eager, settings, rows = model_of(name), model_of(name, "eager"), METHODS[method], three_rows(name)
    with settings(model) as session:
        tokens, logits = generate(model, name, rows)
        prompts = session.prompts
        alone, lonely = generate(model, name, rows[:1])
    assert [len(prompt.videos) for prompt in prompts] == [1, 0, 2]
    for number, one in enumerate(rows):
        want, expected = by_hand(eager, name, one, prompts[number].videos, settings, STEPS)
        torch.testing.assert_close(logits[number], expected, atol=5e-4, rtol=0)
        assert tokens[number] == want
        if number == 0:
            torch.testing.assert_close(lonely[0], expected, atol=5e-4, rtol=0)
            assert alone == [want]
    assert sum(len(one.videos) for one in rows) == 3
    if method != "inner only":
        assert all(video.merge.retention < 0.6 for prompt in prompts for video in prompt.videos)


@pytest.mark.parametrize("name", FAMILIES)
def test_compression_and_positions_matter_in_these_tests(name):
    """Otherwise the equalities above could hold by accident."""
    model, one = model_of(name), row(name, ("words", 3), ("video", 6), ("words", 5, 1))
    with torch.no_grad():
        plain = model(**batch(name, one)).logits[0, -1]
        with OUTER(model):
            short = model(**batch(name, one)).logits[0, -1]
        whole = whole_prompt(model, name, one)
        turned = whole.positions.flip(-1) if len(whole.positions) > 1 else whole.positions * 2
        given = turned if len(turned) == 1 else turned[:, None]
        extra = {} if whole.extra is None else {"per_layer_inputs": whole.extra[None]}
        decoder = model.get_decoder()
        moved = [
            decoder(inputs_embeds=whole.embeds[None], position_ids=ids, use_cache=False, **extra).last_hidden_state[
                0, -1
            ]
            for ids in (given, whole.positions if len(turned) == 1 else whole.positions[:, None])
        ]
    assert (plain - short).abs().max() > 0.02
    assert (moved[0] - moved[1]).abs().max() > 0.02


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.inner])
def test_the_stage_inside_the_llm_is_refused_where_layers_are_not_full_attention(name):
    with pytest.raises(ValueError, match=r"mixes attention with other kinds of layers.*layer=None"):
        HoliTom(layer=2)(model_of(name))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.deepstack > 1])
def test_merging_below_deepstack_is_refused(name):
    with pytest.raises(ValueError, match=r"adds visual features.*front of layer 2 or later, not 1"):
        HoliTom(layer=1)(model_of(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_images_alone_stay_untouched(name):
    if FAMILIES[name].image is None:
        assert name in ("glm4v", "glm4v_moe", "glm46v", "gemma4")  # their tiny prompts have no images
        return
    model, one = model_of(name), row(name, ("words", 2), ("image", 1), ("words", 3), ("image", 2), ("words", 2))
    with torch.no_grad():
        want = model(**batch(name, one)).logits
        with OUTER(model) as session:
            assert torch.equal(model(**batch(name, one)).logits, want)
        assert session.videos == []


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("internvl", "smolvlm")])
def test_a_video_of_one_frame(name):
    model, eager = model_of(name), model_of(name, "eager")
    one = row(name, ("words", 3), ("video", 2 if FAMILIES[name].mrope else 1), ("words", 4))
    with OUTER(model) as session:
        tokens, _ = generate(model, name, [one])
        assert [video.frames for video in session.videos] == [1]
        want, _ = by_hand(eager, name, one, session.videos, OUTER, STEPS)
    assert tokens == [want]


@pytest.mark.parametrize("name", FAMILIES)
def test_original_positions(name):
    """Kept as they are in the full prompt for one axis; several axes keep their anchors' places anyway."""
    model, one = model_of(name), row(name, ("words", 3), ("video", 6), ("words", 5, 1))
    caught = {}
    whole = whole_prompt(model, name, one)
    found = []
    for positions in ("compact", "original"):
        with Session(OUTER, model, positions=positions) as session, torch.no_grad():
            after = model.get_decoder().register_forward_pre_hook(lambda _m, _a, k: caught.update(k), with_kwargs=True)
            model(**batch(name, one))
            after.remove()
            found.append(caught["position_ids"])
            assert session.videos
    if FAMILIES[name].mrope:
        assert torch.equal(found[0], found[1])
    else:
        assert found[0][0].tolist() == list(range(found[0].shape[-1]))
        assert found[1][0, -1] == len(one.ids) - 1
        assert set(found[1][0].tolist()) <= set(whole.positions[0].tolist())


def test_gemma_with_visual_tokens_that_see_both_ways_is_refused():
    model = build("gemma4", use_bidirectional_attention="vision")
    with pytest.raises(ValueError, match=r"use_bidirectional_attention.*use a causal one"):
        OUTER(model)


def test_frames_with_holes_are_refused():
    model, one = model_of("video_llama_3"), row("video_llama_3", ("words", 3), ("video", 4), ("words", 2))
    inputs = batch("video_llama_3", one)
    mask = torch.ones(48, dtype=torch.bool)
    with OUTER(model), torch.no_grad():
        model(**inputs, video_compression_mask=mask)
        mask[3] = False
        with pytest.raises(ValueError, match="use_token_compression=False"):
            model(**inputs, video_compression_mask=mask)
