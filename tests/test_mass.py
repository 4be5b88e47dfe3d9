"""Proportional attention: a merged token counts as often as the tokens that it stands for, wherever it is seen."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import pytest
import torch
from families import FAMILIES, IMAGE, VIDEO, batch, build, model_of, row, three_rows, words
from family_reference import by_hand
from hypothesis import given
from hypothesis import settings as examples
from matrix import some
from method_zoo import VARIANTS, videos
from reference import mass_by_hand

from holitom import VideoTokens
from holitom.integrations.vllm.config import ServingConfig
from holitom.merge import Merge, Shares
from holitom.methods import EVS, Chain, FastV, HoliTom, Method, Renewal, Spread, parse, spell
from holitom.runtime.cache import memory_of
from holitom.runtime.mass import masses, weighed_mask
from holitom.runtime.prefix import hold, resume

STEPS = 4
METHODS = {
    "outer": "spread:retention=0.25,mass=true,positions=compact",
    "shares": "fastvid:retention=0.3,segments=2,mass=true",
    "inner": "holitom:retention=0.4,layer=3,mass=true",
    "chain": "averagepool:mass=true|holitom:layer=2",
}
CAN = [name for name, family in FAMILIES.items() if family.inner]
NEVER = {"do_sample": False, "suppress_tokens": [VIDEO, IMAGE]}


def generate(model, name, rows, steps=STEPS, **kwargs):
    inputs = batch(name, *rows)
    out = model.generate(**inputs, **{"max_new_tokens": steps, **NEVER, **kwargs})
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("number", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", VARIANTS, ids=repr)
def test_masses_are_conserved(method: Method, number: int) -> None:
    @given(video=videos())
    @examples(max_examples=number)
    def conserved(video: VideoTokens) -> None:
        merge = method.merge_video(video)
        found = masses(merge)
        torch.testing.assert_close(found, mass_by_hand(merge))
        assert float(found.sum()) == pytest.approx(len(merge.edges()[0].unique()), rel=1e-5)

    conserved()


def test_masses_of_masses() -> None:
    first = Merge(torch.tensor([0, 0, 1, -1]), torch.tensor([0.5, 0.5, 1, 1]), torch.tensor([0, 2]))
    then = Merge(torch.tensor([0, 0]), torch.tensor([0.3, 0.7]), torch.tensor([1]))
    assert masses(then, masses(first)).tolist() == masses(first.compose(then)).tolist() == [3]
    more = Shares(torch.tensor([1]), torch.tensor([1]), torch.tensor([0.5]))
    both = Merge(torch.tensor([0, 0, 1]), torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0, 2]), more)
    assert masses(both).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("form", ["none", "bool", "float"])
@pytest.mark.parametrize("past", [0, 3])
def test_a_key_of_mass_m_is_as_good_as_m_equal_keys(form: str, past: int) -> None:
    """By plain softmax over replicated keys; the same in every form in which a mask may come."""
    random = torch.Generator().manual_seed(0)
    queries, length = 4, past + 4
    hidden = torch.randn(1, queries, 8, generator=random)
    query, key, value = (torch.randn(1, 2, n, 8, generator=random) for n in (queries, length, length))
    size = torch.tensor([[3.0, 1.0, 2.0, 1.0, 5.0, 1.0, 1.0][:length]])
    seen = torch.ones(queries, length, dtype=torch.bool).tril(past)[None, None]
    additive = torch.zeros(1, 1, queries, length).masked_fill(~seen, torch.finfo(torch.float32).min)
    mask = weighed_mask({"none": None, "bool": seen, "float": additive}[form], size.log()[:, :5], length, hidden)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    copies = size[0].long().tolist()
    place = torch.repeat_interleave(torch.arange(length), torch.tensor(copies))
    plain = torch.nn.functional.scaled_dot_product_attention(
        query, key[:, :, place], value[:, :, place], attn_mask=seen[..., place]
    )
    torch.testing.assert_close(out, plain)


@dataclass(frozen=True)
class One(Method):
    """Merges a whole video into one token."""

    name: ClassVar[str] = "one"

    def merge_video(self, video: VideoTokens) -> Merge:
        count = video.frames * video.positions
        return Merge(torch.zeros(count).long(), torch.full((count,), 1 / count), torch.tensor([0]))


def test_equal_tokens_merged_with_their_mass_change_nothing(monkeypatch) -> None:
    """Without rotary positions, and with nothing before the video: its tokens are copies in every layer, too."""
    name = "qwen2_5_vl"
    model = build(name)
    model.get_decoder().rotary_emb.inv_freq.zero_()
    one = row(name, ("video", 6), ("words", 7))
    before = one.videos[0][0]
    assert before <= 1
    inputs = batch(name, one)
    pixels = inputs["pixel_values_videos"]
    first = {**inputs, "pixel_values_videos": pixels[:1].expand_as(pixels)}
    embed = model.get_decoder().embed_tokens
    with torch.no_grad():
        features = model.get_video_features(first["pixel_values_videos"], first["video_grid_thw"]).pooler_output[0]
        for place in range(before):  # the token before the video is one more copy
            embed.weight[one.ids[place]] = features[0]
        assert (features - features[0]).abs().max() < 1e-4
        kept = {"use_cache": True, "logits_to_keep": 5}
        plain = model(**first, **kept).logits
        with One(mass=True)(model):
            weighed = model(**first, **kept).logits
        with One()(model):
            bare = model(**first, **kept).logits
    torch.testing.assert_close(weighed, plain, atol=2e-4, rtol=0)
    assert (bare - plain).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "method"), some(product(CAN, METHODS), 4))
def test_alone_and_in_a_batch_equal_a_computation_by_hand(name, method):
    settings, model, rows = parse(METHODS[method]), model_of(name), three_rows(name)
    if settings.layers(4) and settings.layers(4)[0] < max(1, FAMILIES[name].deepstack):
        settings = parse(METHODS["inner"])
    with settings(model) as session:
        together = generate(model, name, rows)
        prompts = session.prompts
        alone, logits = [], []
        for one in rows:
            shown = {"output_logits": True, "return_dict_in_generate": True, "max_new_tokens": STEPS, **NEVER}
            out = model.generate(**batch(name, one), **shown)
            alone.append(out.sequences[0, -STEPS:].tolist())
            logits.append(torch.cat(out.logits).float())
    assert together == alone
    for number, one in enumerate(rows):
        if one.videos:
            forced = {"forced": alone[number]}
            _, want = by_hand(model_of(name, "eager"), name, one, prompts[number].videos, settings, STEPS, **forced)
            torch.testing.assert_close(logits[number], want, atol=2e-4, rtol=1e-3)


def test_eager_and_sdpa_agree_and_mass_matters() -> None:
    name, method = "llava_onevision", parse(METHODS["inner"])
    logits = []
    for attention, settings in (("sdpa", method), ("eager", method), ("sdpa", parse("holitom:retention=0.4,layer=3"))):
        model = model_of(name, attention)
        with settings(model), torch.no_grad():
            logits.append(model(**batch(name, *three_rows(name))).logits[:, -1])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)
    assert (logits[0] - logits[2]).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["outer", "inner"])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_ways_to_generate_agree(name, method):
    model, rows, settings = model_of(name), three_rows(name)[:1], parse(METHODS[method])
    with settings(model):
        want = generate(model, name, rows)
        assert generate(model, name, rows, use_cache=False) == want
        assert generate(model, name, rows, prompt_lookup_num_tokens=3) == want
        assert generate(model, name, rows, num_return_sequences=2, do_sample=True, top_k=1) == want * 2


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_further_turns_and_cropping_keep_masses(method):
    """A second question on the cache equals the same question after forgetting another one, and a copied cache."""
    name = "llava_onevision"
    model, settings, one = model_of(name), parse(METHODS[method]), three_rows(name)[0]
    kept = {"max_new_tokens": 3, "return_dict_in_generate": True, **NEVER}
    with settings(model):
        first = model.generate(**batch(name, one), **kept)
        cache, history = first.past_key_values, first.sequences[0].tolist()
        assert memory_of(cache).stages[0].mass is not None

        def ask(cache, question):
            ids = torch.tensor([[*history, *question]])
            return model.generate(input_ids=ids, past_key_values=cache, attention_mask=torch.ones_like(ids), **kept)

        length = cache.get_seq_length()
        want = ask(copy.deepcopy(cache), words(5, 1)).sequences[0, -3:].tolist()
        other = ask(cache, words(4, 2)).past_key_values
        other.crop(length - other.get_seq_length())
        got = ask(other, words(5, 1)).sequences[0, -3:].tolist()
    assert got == want
    without = parse("spread:positions=compact" if method == "outer" else METHODS[method].replace(",mass=true", ""))
    with without(model), pytest.raises(ValueError, match=r"masses|cannot go on"):
        ask(cache, words(5, 1))


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_questions_on_a_prefix_equal_whole_prompts(method):
    name = "llava_onevision"
    model, settings, questions = model_of(name), parse(METHODS[method]), [words(5, 1), words(8, 2)]
    starts = [row(name, ("words", 3), ("video", frames), ("words", 2)) for frames in (6, 4)]
    with settings(model) as session:
        want = []
        for start, question in zip(starts, questions, strict=True):
            inputs = batch(name, start)
            ids = torch.tensor([[*start.ids, *question]])
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            want.append(model.generate(**inputs, max_new_tokens=STEPS, **NEVER)[0, -STEPS:].tolist())
        prefixes = [hold(session, batch(name, start)) for start in starts]
        inputs = resume(session, prefixes, questions, pad_id=0)
        got = model.generate(**inputs, max_new_tokens=STEPS, **NEVER)[:, -STEPS:].tolist()
    assert got == want


def test_what_cannot_be_weighed_is_refused() -> None:
    for name, family in FAMILIES.items():
        if not family.inner:
            with pytest.raises(ValueError, match="leave mass out"):
                EVS(mass=True)(model_of(name))
    model = build("llava_onevision")
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'flash_attention_2' attention cannot"):
        Spread(mass=True)(model)
    one = three_rows("llava_onevision")[:1]
    with Spread(mass=True)(model_of("llava_onevision")), pytest.raises(ValueError, match="dynamic"):
        generate(model_of("llava_onevision"), "llava_onevision", one, cache_implementation="static")
    with pytest.raises(ValueError, match="inside the vision tower alone"):
        Renewal(mass=True)
    with pytest.raises(ValueError, match="mass=true"):
        ServingConfig(Spread(mass=True))


def test_it_is_a_setting_like_any_other() -> None:
    chain = Spread(mass=True) | FastV()
    assert isinstance(chain, Chain)
    assert chain.mass
    assert not (Spread() | FastV()).mass
    assert (Spread() | HoliTom(mass=True)).mass
    assert parse(spell(chain)) == chain == parse(chain.settings())
    assert spell(Spread(mass=True)) == "spread:mass=true"


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_half_precision(method):
    name = "llava_onevision"
    model = build(name).to(torch.bfloat16)
    inputs = {key: x.bfloat16() if x.is_floating_point() else x for key, x in batch(name, *three_rows(name)).items()}
    with parse(METHODS[method])(model), torch.no_grad():
        out = model(**inputs)
        again = model(**inputs, use_cache=False)
    assert out.logits.dtype == torch.bfloat16
    assert out.logits.isfinite().all()
    assert torch.equal(out.logits, again.logits)
