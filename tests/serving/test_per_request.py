"""Requests with settings of their own: each is answered as by a server with that setting, in one engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import STOCK, TIMED, answers, assert_same, engine, prompt
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig

SERVER = ServingConfig.of("holitom", retention=0.5)
SETTINGS: dict[str, Any] = {
    "the server's": None,
    "fewer tokens": {"retention": 0.25},
    "another method": "uniformframes:retention=0.4",
}
EQUALS = {
    "the server's": SERVER,
    "fewer tokens": ServingConfig.of("holitom", retention=0.25),
    "another method": ServingConfig.of("uniformframes", retention=0.4),
}
SLOW = set(TIMED)  # share the code of qwen2_5_vl


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in STOCK]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(name, tmp_path_factory.mktemp(name))


def asked(name: str, settings: Any = None) -> dict[str, Any]:
    """Two videos and an image, with some settings."""
    given = prompt(name, ("video", 12, 1), " and ", ("image", 3), " then ", ("video", 6, 2), " what is it?")
    return given if settings is None else {**given, "mm_processor_kwargs": {"holitom": settings}}


@pytest.fixture(scope="module")
def served(name: str, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """One engine's answers: each setting alone, again, and all at once."""
    with engine(checkpoint, name, SERVER, enable_prefix_caching=True, block_size=32) as llm:
        found = {
            turn: {label: answers(llm, asked(name, settings))[0] for label, settings in SETTINGS.items()}
            for turn in ("alone", "again")
        }
        llm.reset_prefix_cache()
        llm.llm_engine.reset_encoder_cache()
        at_once = answers(llm, *(asked(name, settings) for settings in SETTINGS.values()))
        found["at once"] = dict(zip(SETTINGS, at_once, strict=True))
        for wrong, complaint in (
            ({"retention": 0.75}, "this server keeps"),
            ({"colour": "red"}, "cannot set 'colour'"),
            ("fastv", "inside the LLM"),
        ):
            with pytest.raises(ValueError, match=complaint):
                answers(llm, asked(name, wrong))
        found["after refusals"] = {"fewer tokens": answers(llm, asked(name, SETTINGS["fewer tokens"]))[0]}
    return found


def test_each_is_answered_as_by_a_server_with_that_setting(name: str, checkpoint: Path, served: dict):
    for label, config in EQUALS.items():
        with engine(checkpoint, name, config, block_size=32) as llm:
            want = answers(llm, asked(name))[0]
        for turn, found in served.items():
            if label in found:
                assert len(found[label].prompt_token_ids) == len(want.prompt_token_ids), (label, turn)
                assert_same(found[label], want, 1e-5)


def test_the_prefix_cache_is_hit_by_requests_with_the_same_settings_alone(served: dict):
    for label in SETTINGS:
        new, again = served["alone"][label], served["again"][label]
        assert new.num_cached_tokens < 32, "what another setting left behind is not found"
        assert again.num_cached_tokens > len(again.prompt_token_ids) - 64
