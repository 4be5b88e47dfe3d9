"""Families on vLLM's Transformers backend: what they say does not depend on how vLLM runs them, and is transformers'.

Each equality with two videos of different lengths and an image. Three families stand for all; the rest is slow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from backend_families import STOCK, backend, build_checkpoint, media, parts, prompt, text_of
from engines import SERVED, WHOLE, answers, assert_same, engine, metadata, said
from transformers import AutoModelForImageTextToText, AutoProcessor

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.compressor import TowerLimit
from holitom.models import tower_name

ALWAYS = ("qwen2_vl", "glm4v", "video_llama_3")
IN_TOWER = ServingConfig.parse("renewal:budget=0.6|uniformframes", retention=0.25)  # equal patches make others tie
LESS = ServingConfig.of("holitom", retention=0.1)
AGAINST_TRANSFORMERS = {  # the config of each, and the videos: vLLM keeps what it has encoded
    "compressed": (SERVED, 1),
    "settings of a request": (LESS, 1),
    "a stage in the tower": (IN_TOWER, 11),
    "the tower a frame at a time": (SERVED, 21),
}
TIED = {("exaone4_5", 21): 31}  # a tie that 1e-8 decides, with and without a limit of the tower
KERNELS = 1e-4  # by how much the two libraries' kernels move a log-probability


@pytest.fixture(
    scope="module", params=[name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in STOCK]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Said]]]:
    """For each family that is asked for its checkpoint, and what transformers says.

    All before the first engine: that decorates classes of transformers, which families share, for vLLM's compiler.
    """
    tests = [item for item in request.session.items if item.path == request.path]
    done = {}
    for name in dict.fromkeys(item.callspec.params["name"] for item in tests):
        path = build_checkpoint(name, tmp_path_factory.mktemp(name))
        done[name] = (
            path,
            {
                case: with_transformers(
                    name, path, config.method, parts(name, image=False, seed=TIED.get((name, seed), seed))
                )
                for case, (config, seed) in AGAINST_TRANSFORMERS.items()
            },
        )
    return done


@pytest.fixture(scope="module")
def checkpoint(name: str, prepared: dict) -> Path:
    return prepared[name][0]


@dataclass(frozen=True)
class Said:
    """What transformers says: log-probabilities of each step; and each video's share of rows in the vision tower."""

    likely: list[torch.Tensor]
    shares: list[float]


def with_transformers(name: str, path: Path, method: Any, given: tuple[Any, ...]) -> Said:
    """A prompt without images in a session."""
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    videos, _, timed = media(path, given)
    more: dict[str, Any] = {}
    if timed:
        known = [metadata(len(each)) for each in videos]
        for each in known:
            each.pop("do_sample_frames")
        more = {"video_metadata": known, "do_sample_frames": False}
    inputs = AutoProcessor.from_pretrained(path)(
        text=[text_of(name, given)], videos=videos, return_tensors="pt", **more
    )
    if name == "video_llama_3":
        inputs.pop("token_type_ids", None)
    with method(model) as session:
        out = model.generate(
            **inputs, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        shares = [1.0 if video.tower is None else video.tower.share for video in session.videos]
    return Said([step[0].log_softmax(-1) for step in out.logits], shares)


@pytest.fixture(scope="module")
def stock(name: str, checkpoint: Path) -> Any:
    with engine(checkpoint, name, **backend(name, None)) as llm:
        return answers(llm, prompt(name, checkpoint, *parts(name)))[0]


@pytest.fixture(scope="module")
def whole(name: str, checkpoint: Path) -> Any:
    with engine(checkpoint, name, **backend(name, WHOLE)) as llm:
        return answers(llm, prompt(name, checkpoint, *parts(name)))[0]


@pytest.fixture(scope="module")
def served(name: str, checkpoint: Path) -> dict[str, Any]:
    """Compressed answers with a prefix cache: new, again, beside other requests, and those to compare."""
    asked = prompt(name, checkpoint, *parts(name))
    others = [prompt(name, checkpoint, "text alone"), prompt(name, checkpoint, "one ", ("video", 12, 5), "?")]
    with engine(checkpoint, name, **backend(name, SERVED), enable_prefix_caching=True, block_size=32) as llm:
        new, again = answers(llm, asked)[0], answers(llm, asked)[0]
        llm.reset_prefix_cache()
        together = answers(llm, others[0], asked, others[1])[1]
        case = {
            each: prompt(name, checkpoint, *parts(name, image=False, seed=TIED.get((name, seed), seed)))
            for each, (_, seed) in AGAINST_TRANSFORMERS.items()
        }
        case["settings of a request"]["mm_processor_kwargs"] = {"holitom": {"retention": 0.1}}
        said_to = {each: answers(llm, case[each])[0] for each in ("compressed", "settings of a request")}
        llm.apply_model(a_frame_at_a_time)
        said_to["the tower a frame at a time"] = answers(llm, case["the tower a frame at a time"])[0]
        llm.apply_model(in_tower)
        said_to["a stage in the tower"] = answers(llm, case["a stage in the tower"])[0]
    return {"new": new, "again": again, "together": together, **said_to}


def a_frame_at_a_time(model: Any) -> None:
    """As where a video is larger than what vLLM measured its memory with."""
    model.compressor = dataclasses.replace(model.compressor, limit=TowerLimit(1))


def in_tower(model: Any) -> None:
    """Another method in a running engine, which keeps as many tokens."""
    method = IN_TOWER.method.for_tower(tower_name(model.config))
    model.compressor = dataclasses.replace(model.compressor, config=ServingConfig(method), limit=None)


def test_pruning_nothing_is_the_stock_backend(stock: Any, whole: Any):
    assert len(whole.prompt_token_ids) == len(stock.prompt_token_ids)
    assert_same(whole, stock, 0.0)


def test_compression_matters_here(whole: Any, served: dict):
    assert len(served["new"].prompt_token_ids) < len(whole.prompt_token_ids)
    assert max(abs(a - b) for a, b in zip(said(served["new"])[1], said(whole)[1], strict=True)) > 1e-3


@pytest.mark.parametrize("case", AGAINST_TRANSFORMERS)
def test_answers_are_those_of_transformers(name: str, prepared: dict, served: dict, case: str):
    expected = prepared[name][1][case]
    assert (max(expected.shares) < 0.9) == (case == "a stage in the tower")
    for token, chance, step in zip(*said(served[case]), expected.likely, strict=True):
        assert abs(chance - float(step[token])) < KERNELS
        assert token == int(step.argmax())


def test_a_request_keeps_less(served: dict):
    assert len(served["settings of a request"].prompt_token_ids) < len(served["compressed"].prompt_token_ids)


def test_a_hit_in_the_prefix_cache_changes_nothing(served: dict):
    assert served["again"].num_cached_tokens > len(served["again"].prompt_token_ids) - 64
    assert_same(served["again"], served["new"])


def test_requests_at_once_are_answered_as_alone(served: dict):
    assert_same(served["together"], served["new"])


def test_chunked_prefill_changes_nothing(name: str, checkpoint: Path, served: dict):
    chunk = len(served["new"].prompt_token_ids) * 2 // 3
    with engine(checkpoint, name, **backend(name, SERVED), max_num_batched_tokens=chunk) as llm:
        assert_same(answers(llm, prompt(name, checkpoint, *parts(name)))[0], served["new"])
