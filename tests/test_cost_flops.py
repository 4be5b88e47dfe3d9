"""The counts equal torch's flop counter on real forwards of tiny models, to the FLOP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cost_models import FAMILIES, build, config, encode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import AutoConfig, AutoModelForImageTextToText, DynamicCache

from holitom.cost import (
    AttentionShape,
    Flops,
    LayerShape,
    ModelShape,
    ShortConvShape,
    decode_flops,
    prefill_flops,
    vision_flops,
)
from holitom.models.transformers_names import cache_argument

# torch's registry has the CUDA kernels of sdpa only; the CPU kernel gets the same formula.
CPU_SDPA = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, out_shape=None, **options: (
        sdpa_flop_count(q, k, v)
    )
}
EXACT = [name for name in FAMILIES if name not in ("qwen3_5", "lfm3_vl")]


def counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False, custom_mapping=CPU_SDPA) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def read(model: torch.nn.Module, tokens: int, logits: slice, cache: DynamicCache | None = None) -> None:
    """The language model and its head on ``tokens`` new tokens."""
    ids = torch.arange(tokens)[None] % 90
    given = {cache_argument(model.get_decoder().forward): cache}
    hidden = model.get_decoder()(input_ids=ids, **given, use_cache=cache is not None).last_hidden_state
    model.lm_head(hidden[:, logits])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", EXACT)
def test_prefill_equals_the_counter(name, attention):
    model = build(name, attention)
    shape = ModelShape.from_config(model.config)
    for logits, positions in ((1, slice(-1, None)), ("all", slice(None))):
        expected = counted(lambda positions=positions: read(model, 9, positions))
        assert prefill_flops(shape, [9] * shape.depth, logits=logits, causal=False).total == expected


@pytest.mark.parametrize("name", EXACT)
def test_decoding_and_a_further_turn_equal_the_counter(name):
    model = build(name)
    shape = ModelShape.from_config(model.config)
    cache = DynamicCache(config=model.config.get_text_config())
    read(model, 9, slice(-1, None), cache)
    step = counted(lambda: read(model, 1, slice(-1, None), cache))
    assert decode_flops(shape, [9] * shape.depth).total == step
    turn = counted(lambda: read(model, 5, slice(-1, None), cache))
    assert prefill_flops(shape, [5] * shape.depth, past_per_layer=[10] * shape.depth, causal=False).total == turn


@pytest.mark.skipif("lfm3_vl" not in FAMILIES, reason="the installed transformers has no LFM3-VL")
def test_short_convolutions_differ_from_the_counter_by_their_padding():
    model = build("lfm3_vl", "sdpa")
    shape = ModelShape.from_config(model.config)
    convolutions = [layer.attention for layer in shape.layers if isinstance(layer.attention, ShortConvShape)]
    assert len(convolutions) == 2
    # transformers pads on both sides and cuts the end off again: kernel - 1 outputs that nobody needs
    padding = sum(2 * (conv.kernel - 1) * conv.channels * conv.kernel for conv in convolutions)
    assert prefill_flops(shape, [9] * 4, causal=False).total + padding == counted(
        lambda: read(model, 9, slice(-1, None))
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_vision_tower_and_projector_equal_the_counter(name):
    model = build(name)
    family = FAMILIES[name]
    counts = vision_flops(ModelShape.from_config(model.config), family.frames, family.grid)
    assert counts.total == counted(lambda: encode(name, model))
    assert counts.embedding > 0
    assert counts.projector > 0


@pytest.mark.parametrize(
    ("name", "tower", "options"),
    [
        ("llava_onevision", {"vision_use_head": True}, {}),
        ("llava_onevision", {}, {"vision_feature_layer": [0, 1]}),
        ("llava_next_video", {}, {"spatial_pool_mode": "conv"}),
        ("llava_next_video", {"image_size": 25}, {}),  # 5 patches in rows of 2: the last is dropped
    ],
)
def test_variants_of_towers_equal_the_counter(name, tower, options):
    values = {**FAMILIES[name].config, **options}
    values["vision_config"] = {**values["vision_config"], **tower}
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**values), attn_implementation="eager").eval()
    side = model.config.vision_config.image_size
    pixels = torch.randn(1, 2, 3, side, side)
    counts = vision_flops(ModelShape.from_config(model.config), 2)
    assert counts.total == counted(lambda: model.model.get_video_features(pixel_values_videos=pixels))


def test_generate_is_vision_plus_prefill_plus_decode():
    model = build("llava_onevision", "sdpa")
    shape = ModelShape.from_config(model.config)
    ids = torch.tensor([[1, 2] + [100] * (3 * 4 + 1) + [3]])  # 3 frames of 2 x 2 pooled tokens and a newline
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **FAMILIES["llava_onevision"].pixels()}
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = counted(lambda: model.generate(**inputs, **options))
    prompt = [ids.shape[1]] * shape.depth
    mine = vision_flops(shape, 3) + prefill_flops(shape, prompt, causal=False) + decode_flops(shape, prompt, steps=3)
    assert mine.total == expected


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_next_video", "glm4v"])
def test_layers_with_unequal_tokens_equal_the_counter(name):
    model = build(name)
    shape = ModelShape.from_config(model.config)
    decoder = model.get_decoder()
    tokens = (11, 7, 4)

    def shrinking() -> None:
        hidden = torch.randn(1, tokens[0], shape.hidden)
        positions = torch.arange(tokens[0])[None]
        for layer, kept in zip(decoder.layers, tokens, strict=True):
            hidden, positions = hidden[:, -kept:], positions[:, -kept:]
            rotary = decoder.rotary_emb(hidden, positions)
            hidden = layer(hidden, position_embeddings=rotary, attention_mask=None, position_ids=positions)
        model.lm_head(decoder.norm(hidden)[:, -1:])

    assert prefill_flops(shape, tokens, causal=False).total == counted(shrinking)


def test_the_delta_rule_differs_from_the_counter_only_where_explained():
    model = build("qwen3_5")
    shape = ModelShape.from_config(model.config)
    tokens, chunk, layers = 70, 64, 3
    delta = shape.layers[0].attention
    # torch's counter leaves out the triangular solve, and counts the convolution's padding on the right.
    chunks = 2
    solve = layers * delta.value_heads * chunks * chunk * (chunk - 1) * (delta.key_dim + delta.value_dim)
    padding = layers * 2 * (delta.kernel - 1) * delta.channels * delta.kernel
    mine = prefill_flops(shape, [tokens] * shape.depth, causal=False).total
    assert mine - solve + padding == counted(lambda: read(model, tokens, slice(-1, None)))


def test_delta_rule_decoding_does_not_grow_with_the_cache():
    shape = ModelShape.from_config(config("qwen3_5", layer_types=["linear_attention"] * 4))
    assert decode_flops(shape, [10] * 4) == decode_flops(shape, [10_000] * 4)


def test_causal_counts_the_visible_pairs():
    shape = ModelShape.from_config(config("gemma4"))
    tokens, window = 9, 4
    visible = [sum(min(i + 1, window) for i in range(tokens)), tokens * (tokens + 1) // 2]  # sliding, full
    expected = sum(
        4 * layer.attention.heads * layer.attention.head_dim * visible[index % 2]
        for index, layer in enumerate(shape.layers)
    )
    assert prefill_flops(shape, [tokens] * 6).attention == expected
    assert prefill_flops(shape, [tokens] * 6, causal=False).attention > expected


@pytest.mark.parametrize("name", ["llava_onevision", "gemma4"])
def test_reading_a_prompt_at_once_or_token_by_token_has_the_same_visible_pairs(name):
    shape = ModelShape.from_config(config(name))
    at_once = prefill_flops(shape, [13] * shape.depth, logits="all")
    assert decode_flops(shape, [0] * shape.depth, steps=13) == at_once
    halves = prefill_flops(shape, [6] * shape.depth, logits="all") + prefill_flops(
        shape, [7] * shape.depth, logits="all", past_per_layer=[6] * shape.depth
    )
    assert halves == at_once


def test_the_7b_model_without_building_it():
    # 32 frames of LLaVA-OneVision-7B: 6,272 visual tokens, a newline and 60 tokens of text.
    shape = ModelShape.from_config(
        AutoConfig.for_model(
            "llava_onevision",
            text_config={
                "model_type": "qwen2",
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "vocab_size": 152128,
            },
        )
    )
    n, d, m, kv = 6333, 3584, 18944, 512
    layer = 2 * n * (2 * d * d + 2 * d * kv) + 2 * n * (n + 1) * d + 2 * n * 3 * d * m
    assert prefill_flops(shape, [n] * 28).total == 28 * layer + 2 * d * 152128


def test_parts_add_up():
    one = Flops(1, 2, 3, 4, 5, 6)
    assert one.total == 21
    assert (one + one).total == 42
    assert one.as_dict() == {
        "projections": 1,
        "attention": 2,
        "mlp": 3,
        "head": 4,
        "embedding": 5,
        "projector": 6,
        "total": 21,
    }


SHAPE = ModelShape("tiny", 8, 16, (LayerShape(AttentionShape(2, 1, 4), 8),) * 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prefill_flops(SHAPE, [3]), ValueError, "tokens_per_layer needs one count for each of the 2 decoder"),
        (lambda: prefill_flops(SHAPE, [3, 0]), ValueError, "at least 1, got 0 for layer 1"),
        (lambda: prefill_flops(SHAPE, [3, 2.0]), TypeError, "must hold ints, got 2.0 for layer 1"),
        (lambda: prefill_flops(SHAPE, [3, 2], logits=3), ValueError, r"logits must be in 0..2"),
        (lambda: prefill_flops(SHAPE, [3, 2], logits="last"), TypeError, "logits must be an int or 'all'"),
        (lambda: prefill_flops(SHAPE, [3, 2], past_per_layer=[1]), ValueError, "past_per_layer needs one count"),
        (lambda: decode_flops(SHAPE, [3, 2], steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: decode_flops(SHAPE, [3, -1]), ValueError, "at least 0, got -1 for layer 1"),
        (lambda: vision_flops(SHAPE, 3), ValueError, "the shape of tiny has no vision tower"),
        (
            lambda: vision_flops(ModelShape.from_config(config("qwen3_vl")), 3),
            ValueError,
            r"qwen3_vl takes frames of any size: give grid=\(rows, columns\)",
        ),
        (
            lambda: vision_flops(ModelShape.from_config(config("qwen3_vl")), 3, (1, 4)),
            ValueError,
            "grid must have at least 2 rows and columns, got 1 x 4",
        ),
        (
            lambda: vision_flops(ModelShape.from_config(config("llava_onevision")), 0),
            ValueError,
            "frames must be at least 1, got 0",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
