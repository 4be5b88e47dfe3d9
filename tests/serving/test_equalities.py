"""What a served model says does not depend on how vLLM runs it; each equality with two videos and an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from engines import SERVED, STOCK, WHOLE, answers, assert_same, engine, prompt, said, two_videos_and_an_image
from serving_checkpoints import build_checkpoint

EQUAL_LENGTHS = {"llava_onevision": (8, 8)}  # stock vLLM fails on two videos of different lengths there
LENGTH = {"llava_onevision": 384, "qwen2_5_vl": 160, "qwen3_vl": 256}  # enough for the longest request alone
CHUNK = {"llava_onevision": 160, "qwen2_5_vl": 32, "qwen3_vl": 112}  # the largest media item has to fit


@pytest.fixture(scope="module", params=STOCK)
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
        "shortest": prompt(name, "one ", ("video", 2 if name == "qwen3_vl" else 1, 8), " step"),  # Qwen3-VL wants two
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
    return {"alone": alone, "again": again, "together": together}


@pytest.fixture(scope="module")
def crowded(name: str, checkpoint: Path) -> dict[str, Any]:
    """Compressed answers without a prefix cache, in chunks: one alone, then all at once with too little memory."""
    asked = prompts(name)
    memory = {"max_model_len": LENGTH[name], "num_gpu_blocks_override": LENGTH[name] // 32 + 2}
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
        together = dict(zip(asked, answers(llm, *asked.values(), steps=40), strict=True))
        return {"alone": alone, "together": together, "preemptions": preemptions(llm) - before}


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
        assert again.num_cached_tokens > len(again.prompt_token_ids) - 64  # only the last block is run again
        assert_same(again, served["alone"][key])


def test_requests_at_once_are_answered_as_alone(served: dict):
    for key, answer in served["together"].items():
        assert_same(answer, served["alone"][key])


def test_chunked_prefill_changes_nothing(name: str, served: dict, crowded: dict):
    assert len(crowded["alone"].prompt_token_ids) > CHUNK[name]
    assert_same(crowded["alone"], served["alone"]["both"])


def test_preemption_changes_nothing(served: dict, crowded: dict):
    assert crowded["preemptions"] > 0
    for key, answer in crowded["together"].items():
        assert_same(answer, served["alone"][key])
