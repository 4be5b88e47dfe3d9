"""Tokens that keep their places: whole-model equalities, and what reads gaps in positions in another way."""

from __future__ import annotations

import pytest
import torch
from models import llava_onevision, padded, prompt, video, words
from reference import generate_by_hand
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence

from holitom import HoliTom
from holitom.methods import EVS, FastV, Spread
from holitom.runtime import Session

STEPS = 5
METHODS = {
    "spread": Spread(retention=0.2),
    "few tokens, long gaps": Spread(retention=0.03),
    "holitom": HoliTom(retention=0.3, positions="original"),
    "pruned, then inside": EVS(retention=0.4, positions="original") | HoliTom(layer=2),
}
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture(scope="module")
def eager():
    return llava_onevision(attention="eager")


@pytest.fixture(scope="module")
def model():
    return llava_onevision()


def generate(model, rows, clips, **kwargs):
    out = model.generate(
        **padded(rows), pixel_values_videos=clips, **{"max_new_tokens": STEPS, "do_sample": False, **kwargs}
    )
    return out[:, -STEPS:].tolist()


def test_places_beyond_those_that_a_model_was_made_for_are_said(caplog):
    model, ids, clip = llava_onevision(), prompt(8), video(8)
    model.get_decoder().config.max_position_embeddings = len(ids) - 1
    for method, said in ((Spread(retention=0.2, positions="compact"), 0), (Spread(retention=0.2), 1)):
        with method(model):
            for _ in range(2):  # once for each session
                generate(model, [ids], clip)
        assert len(caplog.records) == said
    assert f"reach position {len(ids) - 1} of a model made for {len(ids) - 1}" in caplog.text


@each
def test_greedy_tokens_equal_a_computation_by_hand(model, eager, method):
    ids, clip = prompt(8), video(8)
    want = generate_by_hand(eager, ids, [clip[0]], method, STEPS)
    with method(model) as session:
        assert generate(model, [ids], clip) == [want]
    assert session.positions == method.positions == "original"
    assert session.summary().method.get("positions", session.summary().method.get("before")) is not None


@pytest.mark.parametrize("method", [METHODS["spread"], METHODS["pruned, then inside"]], ids=repr)
def test_batches_and_several_videos(model, eager, method):
    rows, clips = [prompt(6), prompt(6, 6, seed=5, before=8)], video(6, count=3, seed=4)
    hand = [
        generate_by_hand(eager, rows[0], [clips[0]], method, STEPS),
        generate_by_hand(eager, rows[1], [clips[1], clips[2]], method, STEPS),
    ]
    with method(model):
        assert generate(model, rows, clips) == hand


@pytest.mark.parametrize(
    "mode", [{"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}], ids=str
)
def test_ways_to_generate_agree(model, eager, mode):
    method, ids, clip = METHODS["spread"], prompt(6), video(6)
    want = generate_by_hand(eager, ids, [clip[0]], method, STEPS)
    with method(model):
        assert generate(model, [ids], clip, **mode) == [want]


def test_a_further_turn_on_a_kept_cache_goes_on_behind_the_full_prompt(model, eager):
    method, first, second = METHODS["spread"], prompt(6), words(6, 9)
    clip = video(6)
    kept = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with method(model):
        one = model.generate(**padded([first]), pixel_values_videos=clip, **kept)
        ids = [*one.sequences[0].tolist(), *second]
        mask = torch.ones(1, len(ids))
        two = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=mask, past_key_values=one.past_key_values, **kept
        )
    assert two.sequences[0, -3:].tolist() == generate_by_hand(eager, ids, [clip[0]], method, 3)


def flash_probe(module, query, key, value, attention_mask, **kwargs):
    """Attention that would be wrong where flash attention is: it refuses positions that read as packed sequences."""
    assert attention_mask is not None or not _is_packed_sequence(kwargs["position_ids"], len(query))
    long, short = key.shape[2], query.shape[2]
    mask = torch.arange(long)[None] <= torch.arange(long - short, long)[:, None]
    if attention_mask is not None:
        mask = mask & attention_mask[:, None, None, :].bool()
    mask = mask.expand(len(query), 1, short, long)
    return sdpa_attention_forward(module, query, key, value, mask, **{**kwargs, "is_causal": False})


@each
def test_flash_attention_takes_gaps_for_what_they_are(eager, method):
    """Its layers split a row without padding at gaps in position ids into packed sequences, which these are not."""
    AttentionInterface.register("flash_probe", flash_probe)
    AttentionMaskInterface.register("flash_probe", flash_attention_mask)
    model = llava_onevision()
    model.get_decoder().config._attn_implementation = "flash_probe"
    rows, clips = [prompt(6), prompt(6, seed=5, before=8)], video(6, count=2, seed=4)
    hand = [generate_by_hand(eager, ids, [clip], method, STEPS) for ids, clip in zip(rows, clips, strict=True)]
    with method(model):
        assert generate(model, rows[:1], clips[:1]) == hand[:1]
        assert generate(model, rows, clips) == hand


def test_who_says_which_positions(model):
    assert Session(Spread(), model).positions == "original"
    assert Session(EVS(), model).positions == "compact"
    assert Session(Spread(), model, positions="compact").method == Spread(positions="compact")
    chain = Session(EVS() | FastV(layer=2), model, positions="original").method
    assert chain == EVS(positions="original") | FastV(layer=2)
    with pytest.raises(ValueError, match="'compact' or 'original'"):
        Session(EVS(), model, positions="kept")
