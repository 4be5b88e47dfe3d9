"""A report sets a compressed prompt beside the full one; its figures are those of the single functions."""

from __future__ import annotations

import json

import pytest
import torch
from cost_models import config
from transformers import AutoConfig

from holitom.cost import (
    CostReport,
    ModelShape,
    activation_peak_bytes,
    decode_flops,
    kv_cache_bytes,
    paper_flops,
    paper_schedule,
    prefill_flops,
    vision_flops,
)

SMALL = ModelShape.from_config(config("llava_onevision"))


def llava_onevision_7b() -> ModelShape:
    text = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152128}
    return ModelShape.from_config(AutoConfig.for_model("llava_onevision", text_config=text))


def test_the_papers_headline_row():
    # 10 % and the inner merge: 6.9 % of the FLOPs by the paper's formula, whatever the length of the text.
    shape, text = llava_onevision_7b(), 40
    visual = paper_schedule(32, 196, 0.10, 28, inner_layer=18)
    report = CostReport.of(shape, [6272 + text], [[n + text for n in visual]], [visual], torch.bfloat16)
    assert round(report.full.paper_flops / 1e12, 1) == 40.8
    assert round(report.compressed.paper_flops / 1e12, 1) == 2.8
    assert round(100 * report.ratios["paper_flops"], 1) == 6.9
    # The true ratio is larger: the text is in it too.
    assert report.ratios["paper_flops"] < report.ratios["prefill_flops"] < 0.1
    assert report.full.kv_cache_bytes == 28 * 2 * 512 * 2 * (6272 + text)
    assert report.ratios["kv_cache_bytes"] == pytest.approx((18 * 680 + 10 * 360) / (28 * 6312))


def test_figures_are_those_of_the_single_functions():
    tokens, visual = [[20, 20, 12], [9, 9, 9]], [[16, 16, 8], [0, 0, 0]]  # a video and a text-only prompt
    report = CostReport.of(SMALL, [84, 9], tokens, visual, torch.float16)
    assert report.compressed.prompt_tokens == 29
    assert report.compressed.visual_tokens == 16
    assert report.full.prompt_tokens == 93
    assert report.full.visual_tokens == 80
    assert report.compressed.paper_flops == paper_flops([16, 16, 8], 24, 40)
    assert report.full.paper_flops == paper_flops([80] * 3, 24, 40)
    for cost, samples in ((report.compressed, tokens), (report.full, [[84] * 3, [9] * 3])):
        assert cost.prefill_flops == sum(prefill_flops(SMALL, n).total for n in samples)
        assert cost.decode_flops == sum(decode_flops(SMALL, n).total for n in samples)
        assert cost.kv_cache_bytes == sum(kv_cache_bytes(SMALL, n, 2) for n in samples)
        assert cost.activation_peak_bytes == max(activation_peak_bytes(SMALL, n, 2) for n in samples)


def test_nothing_dropped_is_ratio_one_and_no_video_has_no_paper_ratio():
    report = CostReport.of(SMALL, [9], [[9] * 3], [[0] * 3])
    assert report.ratios["prefill_flops"] == 1
    assert report.ratios["paper_flops"] is None
    assert report.ratios["visual_tokens"] is None
    assert report.ratios["time_to_first_token_flops"] is None


def test_the_vision_tower_dilutes_the_ratio():
    vision = vision_flops(SMALL, 3)
    report = CostReport.of(SMALL, [84], [[20] * 3], [[16] * 3], vision=vision)
    before, after = report.full.prefill_flops, report.compressed.prefill_flops
    assert report.ratios["time_to_first_token_flops"] == (vision.total + after) / (vision.total + before)
    assert report.as_dict()["vision_flops"]["total"] == vision.total


def test_options_reach_the_counts():
    arguments = (SMALL, [84], [[20] * 3], [[16] * 3])
    plain = CostReport.of(*arguments)
    assert plain.as_dict()["attention_pairs"] == "causal"
    eager = CostReport.of(*arguments, attention="eager")
    assert eager.full.activation_peak_bytes > plain.full.activation_peak_bytes
    single = CostReport.of(*arguments, torch.float32)
    assert single.full.kv_cache_bytes == 2 * plain.full.kv_cache_bytes


def test_linear_attention_has_no_activation_peak():
    shape = ModelShape.from_config(config("qwen3_5"))
    report = CostReport.of(shape, [84], [[20] * 4], [[16] * 4])
    assert report.full.activation_peak_bytes is None
    assert report.ratios["activation_peak_bytes"] is None


def test_a_report_survives_json():
    report = CostReport.of(SMALL, [84], [[20, 20, 12]], [[16, 16, 8]], vision=vision_flops(SMALL, 3))
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert report.as_dict()["tokens_per_layer"] == [[20, 20, 12]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "need one entry for each sample, got 0, 0 and 0"),
        (([9], [[9] * 3, [9] * 3], [[0] * 3]), "need one entry for each sample, got 1, 2 and 1"),
        (([9], [[9] * 2], [[0] * 2]), r"tokens_per_layer\[0\] needs one count for each of the 3 decoder layers"),
        (([9], [[9] * 3], [[9, 9, 10]]), "sample 0: visual_per_layer holds more tokens than tokens_per_layer"),
        (([9, 8], [[9] * 3] * 2, [[0] * 3] * 2), "sample 1: prompt_tokens is 8, below the 9 that entered layer 0"),
    ],
)
def test_lists_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CostReport.of(SMALL, *arguments)
