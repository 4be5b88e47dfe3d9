"""What a served model says does not depend on how vLLM runs it; each equality with two videos and an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import interpreted
import pytest
from engines import (
    HYBRID,
    SERVED,
    STOCK,
    TIMED,
    WHOLE,
    answers,
    assert_same,
    engine,
    prompt,
    said,
    two_videos_and_an_image,
)
from serving_checkpoints import build_checkpoint

EQUAL_LENGTHS = {"llava_onevision": (8, 8)}  # stock vLLM fails on two videos of different lengths there
# enough memory for the longest request alone
LENGTH = {"llava_onevision": 384, "qwen2_5_vl": 160, **dict.fromkeys({*TIMED} - {*HYBRID}, 256)}
RUNNERS = 1e-5  # the two order some sums otherwise
CHUNK = {**dict.fromkeys(STOCK, 112), "llava_onevision": 160, "qwen2_5_vl": 32}  # the largest item
BFLOAT16 = 0.02  # by how much a prompt in two chunks moves a log-probability of a hybrid, on stock vLLM too


@pytest.fixture(scope="module", params=[pytest.param(each, marks=pytest.mark.xdist_group(each)) for each in STOCK])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(name, tmp_path_factory.mktemp(name))


def prompts(name: str) -> dict[str, dict]:
    """Requests of very different kinds."""
    return {
        "both": two_videos_and_an_image(name),
        "text": prompt(name, "nothing to see, only a question?"),
        "long": prompt(name, "a longer one ", ("video", 12, 5), " ?"),
        "short": prompt(name, ("video", 2, 6), " and an image ", ("image", 7), " what now?"),
        "shortest": prompt(name, "one ", ("video", 2 if name in TIMED else 1, 8), " step"),  # Qwen3-VL wants two
        "image": prompt(name, "an image ", ("image", 9)),
    }


@pytest.fixture(scope="module")
def stock(name: str, checkpoint: Path) -> Any:
    """The first prompt's answer without holitom."""
    with engine(checkpoint, name) as llm:
        return answers(llm, comparable(name))[0]


@pytest.fixture(scope="module")
def whole(name: str, checkpoint: Path) -> Any:
    """The same with holitom's architecture, keeping every token."""
    with engine(checkpoint, name, WHOLE) as llm:
        return answers(llm, comparable(name))[0]


@pytest.fixture(scope="module")
def served(name: str, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Compressed answers with a prefix cache: alone and new, a second time, and all at once."""
    asked = prompts(name)
    with engine(checkpoint, name, SERVED, enable_prefix_caching=True, block_size=32) as llm:
        alone, again = {}, {}
        for key, each in asked.items():
            llm.reset_prefix_cache()
            alone[key], again[key] = answers(llm, each)[0], answers(llm, each)[0]
        llm.reset_prefix_cache()
        together = dict(zip(asked, answers(llm, *asked.values()), strict=True))
        block = llm.llm_engine.vllm_config.cache_config.block_size  # a hybrid's is that of its states
    return {"alone": alone, "again": again, "together": together, "block": block}


@pytest.fixture(scope="module")
def crowded(name: str, checkpoint: Path) -> dict[str, Any]:
    """Compressed answers without a prefix cache, in chunks: one alone, then all at once with too little memory."""
    asked = prompts(name)
    memory = (
        {"max_model_len": LENGTH[name], "num_gpu_blocks_override": LENGTH[name] // 32 + 2} if name in LENGTH else {}
    )
    with engine(
        checkpoint,
        name,
        SERVED,
        enable_prefix_caching=False,
        block_size=32,
        max_num_batched_tokens=CHUNK[name],
        **memory,
    ) as llm:
        llm.apply_model(in_one_pass)
        alone = answers(llm, asked["both"])[0]
        before = preemptions(llm)
        if not memory:
            return {"alone": alone}
        together = dict(zip(asked, answers(llm, *asked.values(), steps=40), strict=True))
        return {"alone": alone, "together": together, "preemptions": preemptions(llm) - before}


@pytest.fixture(scope="module")
def on_the_first_runner(name: str, checkpoint: Path) -> Any:
    """The first prompt's compressed answer on Model Runner V1, where the others are V2's."""
    if not interpreted.wanted():
        pytest.skip(f"these are answers of runner V1: {interpreted.SWITCH}=1")
    with engine(checkpoint, name, SERVED, {interpreted.SWITCH: "0"}) as llm:
        return answers(llm, prompts(name)["both"])[0]


def in_one_pass(model: Any) -> None:
    """Encodes whole videos at once: parts round otherwise (1.4e-6), which is another question (test_tower_limit)."""
    model.compressor = dataclasses.replace(model.compressor, limit=None)


def comparable(name: str) -> dict[str, Any]:
    """The prompt on which stock vLLM works as well."""
    return two_videos_and_an_image(name, *EQUAL_LENGTHS.get(name, (8, 6)))


def preemptions(llm: Any) -> int:
    """How often the engine has taken a request's memory away."""
    return sum(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def test_pruning_nothing_is_stock_vllm(stock: Any, whole: Any):
    assert len(whole.prompt_token_ids) == len(stock.prompt_token_ids)
    assert_same(whole, stock)


def test_compression_and_content_matter_here(whole: Any, served: dict):
    compressed = served["alone"]["both"]
    assert len(compressed.prompt_token_ids) < len(whole.prompt_token_ids)
    assert max(abs(a - b) for a, b in zip(said(compressed)[1], said(whole)[1], strict=True)) > 1e-3


def test_a_hit_in_the_prefix_cache_changes_nothing(served: dict):
    for key, again in served["again"].items():
        assert again.num_cached_tokens == (len(again.prompt_token_ids) - 1) // served["block"] * served["block"]
        assert_same(again, served["alone"][key])


def test_requests_at_once_are_answered_as_alone(served: dict):
    for key, answer in served["together"].items():
        assert_same(answer, served["alone"][key])


def test_chunked_prefill_changes_nothing(name: str, served: dict, crowded: dict):
    assert len(crowded["alone"].prompt_token_ids) > CHUNK[name]
    assert_same(crowded["alone"], served["alone"]["both"], BFLOAT16 if name in HYBRID else 1e-6)


def test_preemption_changes_nothing(name: str, served: dict, crowded: dict):
    if name in HYBRID:
        pytest.skip("on a CPU linear attention answers a text otherwise among others than alone, in stock vLLM too")
    assert crowded["preemptions"] > 0
    for key, answer in crowded["together"].items():
        assert_same(answer, served["alone"][key])


def test_both_runners_say_the_same(name: str, on_the_first_runner: Any, served: dict):
    assert_same(served["alone"]["both"], on_the_first_runner, BFLOAT16 if name in HYBRID else RUNNERS)
