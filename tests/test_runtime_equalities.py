"""Whole-model equalities on a tiny LLaVA-OneVision: what generate() gives equals what is computed by hand."""

from __future__ import annotations

import pytest
import torch
from models import IMAGE, llava_onevision, padded, prompt, video, words
from reference import generate_by_hand

from holitom import HoliTom
from holitom.runtime import Session

STEPS = 6
METHODS = {
    "default": HoliTom(retention=0.2),
    "outer only": HoliTom(retention=0.2, layer=None),
    "early inner": HoliTom(retention=0.3, layer=1, inner_retention=0.3),
    "mean inner": HoliTom(retention=0.3, layer=2, inner_merge="mean", centre_weight=None),
    "inner only": HoliTom(retention=1.0, layer=2),
    "exact": HoliTom(retention=0.25, exact=True),
}


@pytest.fixture(scope="module")
def eager():
    return llava_onevision(attention="eager")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return llava_onevision(attention=request.param)


def generate(model, rows, clips, steps=STEPS, **kwargs):
    inputs = padded(rows)
    if clips is not None:
        inputs["pixel_values_videos"] = clips
    out = model.generate(**inputs, max_new_tokens=steps, do_sample=False, **kwargs)
    return out[:, -steps:].tolist()


@pytest.mark.parametrize("name", METHODS)
def test_greedy_tokens_equal_a_computation_by_hand(model, eager, name):
    ids, clip = prompt(6), video(6)
    want = generate_by_hand(eager, ids, [clip[0]], METHODS[name], STEPS)
    with METHODS[name](model):
        assert generate(model, [ids], clip) == [want]


@pytest.mark.parametrize("name", ["default", "outer only", "inner only"])
def test_a_batch_of_unequal_prompts_equals_each_alone(model, eager, name):
    rows = [prompt(6), prompt(seed=3, after=9), prompt(6, 6, seed=5, before=8)]
    clips = video(6, count=3, seed=4)
    hand = [
        generate_by_hand(eager, rows[0], [clips[0]], METHODS[name], STEPS),
        generate_by_hand(eager, rows[1], [], METHODS[name], STEPS),
        generate_by_hand(eager, rows[2], [clips[1], clips[2]], METHODS[name], STEPS),
    ]
    with METHODS[name](model) as session:
        together = generate(model, rows, clips)
        assert [video.row for video in session.videos] == [0, 2, 2]
        permuted = generate(model, [rows[2], rows[0], rows[1]], clips[[1, 2, 0]])
        alone = [
            generate(model, rows[:1], clips[:1])[0],
            generate(model, rows[1:2], None)[0],
            generate(model, rows[2:], clips[1:])[0],
        ]
    assert together == hand
    assert [permuted[1], permuted[2], permuted[0]] == hand
    assert alone == hand


def test_images_beside_videos_stay_whole(model, eager):
    pixels = torch.randn(1, 3, 3, 56, 56)
    sizes = torch.tensor([[56, 112]])
    features = eager.model.get_image_features(pixels, sizes).pooler_output[0].detach()
    ids = [*words(2), *[IMAGE] * len(features), *prompt(6)]
    clip = video(6)
    want = generate_by_hand(eager, ids, [clip[0]], METHODS["default"], STEPS, images=features)
    with METHODS["default"](model) as session:
        got = generate(model, [ids], clip, pixel_values=pixels, image_sizes=sizes)
        assert session.prompts[0].tokens == len(ids)
    assert got == [want]


@pytest.mark.parametrize("rows", [1, 3])
def test_retention_one_changes_no_bit(model, rows):
    batch = [prompt(6), prompt(seed=1), prompt(6, 6, seed=2)][:rows]
    inputs = {**padded(batch), "pixel_values_videos": video(6, count=1 if rows == 1 else 3)}
    with torch.no_grad():
        want = model(**inputs).logits
        with HoliTom(retention=1.0, layer=None)(model):
            got = model(**inputs).logits
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    "mode",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
        {"num_return_sequences": 2, "num_beams": 1, "do_sample": True, "top_k": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["default", "outer only", "early inner"])
def test_ways_to_generate_agree(model, eager, name, mode):
    ids, clip = prompt(6), video(6)
    want = generate_by_hand(eager, ids, [clip[0]], METHODS[name], STEPS)
    with METHODS[name](model):
        inputs = {**padded([ids]), "pixel_values_videos": clip}
        out = model.generate(**inputs, **{"do_sample": False, "max_new_tokens": STEPS, **mode})
    assert all(row == want for row in out[:, -STEPS:].tolist())


@pytest.mark.parametrize("name", ["default", "outer only"])
def test_beams_find_what_scoring_every_beam_by_hand_finds(model, name):
    """The best beam's score is the log-probability that a plain compressed forward gives its tokens."""
    ids, clip = prompt(6), video(6)
    inputs = {**padded([ids]), "pixel_values_videos": clip}
    with METHODS[name](model), torch.no_grad():
        beams = model.generate(
            **inputs, num_beams=3, max_new_tokens=4, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
        answer = beams.sequences[0, len(ids) :].tolist()
        total = 0.0
        for step, token in enumerate(answer):
            forced = model.generate(
                **inputs,
                max_new_tokens=step + 1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                prefix_allowed_tokens_fn=lambda _, seen: [answer[len(seen) - len(ids)]],
            )
            total += float(forced.logits[step][0].log_softmax(-1)[token])
    assert float(beams.sequences_scores[0]) * len(answer) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("name", ["default", "outer only"])
@pytest.mark.parametrize("full_ids", [True, False])
def test_further_turns_on_a_kept_cache_equal_one_long_prompt(model, eager, name, full_ids):
    """A second question, then a second video, on the cache of the first."""
    method = METHODS[name]
    first, second, third = prompt(6), words(7, 9), [*words(2, 11), *prompt(4, seed=13)]
    clips = [video(6)[0], video(4, seed=8)[0]]
    with method(model):
        inputs = {**padded([first]), "pixel_values_videos": clips[0][None]}
        kept = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
        one = model.generate(**inputs, **kept)
        said = one.sequences[0].tolist()
        ids = [*said, *second]

        def turn(cache, history, new, **more):
            seen = cache.get_seq_length()
            mask = torch.ones(1, len(history))
            given = history if full_ids else history[seen:]
            assert full_ids or len(given) >= len(new)
            return model.generate(
                input_ids=torch.tensor([given]), attention_mask=mask, past_key_values=cache, **kept, **more
            )

        two = turn(one.past_key_values, ids, second)
        ids2 = [*ids, *two.sequences[0, -3:].tolist(), *third]
        three = turn(two.past_key_values, ids2, third, pixel_values_videos=clips[1][None])
    if name == "outer only":  # an inner stage decides once a turn, so only the outer stage equals one long prompt
        assert two.sequences[0, -3:].tolist() == generate_by_hand(eager, ids, [clips[0]], method, 3)
        assert three.sequences[0, -3:].tolist() == generate_by_hand(eager, ids2, clips, method, 3)
    assert len(three.sequences[0]) == len(ids2 if full_ids else ids2[len(ids) + 2 :]) + 3


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_last_token_changes_nothing_before_it_below_the_inner_stage(model, layer):
    """Causality: official code loses the causal mask of layer K-1; here no earlier hidden state sees the last token."""
    ids, clip = prompt(6), video(6)
    other = [*ids[:-1], ids[-1] % 90 + 1]
    states = []
    with HoliTom(retention=0.3, layer=layer)(model), torch.no_grad():
        for row in (ids, other):
            inputs = {**padded([row]), "pixel_values_videos": clip}
            states.append(model(**inputs, output_hidden_states=True).hidden_states)
    for number in range(layer + 1):  # state n is the output of layer n - 1
        a, b = (run[number][0] for run in states)
        assert torch.equal(a[:-1], b[:-1])
        assert not torch.equal(a[-1], b[-1])
    assert len(states[0][-1][0]) < len(a)


def test_positions_matter_in_these_tests(model):
    """Keeping the full prompt's positions gives other tokens: the equalities above do see positions."""
    ids, clip = prompt(6), video(6)
    inputs = {**padded([ids]), "pixel_values_videos": clip}
    logits = []
    with torch.no_grad():
        for positions in ("compact", "original"):
            with Session(METHODS["outer only"], model, positions=positions):
                logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = llava_onevision().to(dtype)
    with HoliTom(retention=0.2)(model) as session:
        out = generate(model, [prompt(6)], video(6).to(dtype))
    assert len(out[0]) == STEPS
    assert session.videos[0].merge.outputs < 30


def test_a_static_clip_becomes_few_tokens_and_counts_are_true(model):
    clip = video(1).expand(1, 8, 3, 56, 56)
    with HoliTom(retention=0.1)(model) as session:
        generate(model, [prompt(8)], clip)
    [record] = session.videos
    assert record.merge.validate().outputs == record.tokens_by_stage[1] - 1
    [row] = session.prompts
    assert row.by_layer[0] == row.tokens - record.merge.inputs + record.merge.outputs
    assert row.by_layer[-1] == row.by_layer[0] - record.tokens_by_stage[1] + record.tokens_by_stage[2]
    assert row.visual_by_layer[0] == record.tokens_by_stage[1]
    assert row.visual == 8 * 16 + 1
