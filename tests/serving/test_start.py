"""Wrong settings end at start-up with a sentence that says what to do; counters count; bfloat16 keeps its places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import SERVED, STOCK, WHOLE, answers, assert_same, engine, prompt
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig, engine_arguments
from holitom.integrations.vllm.architectures import CALLED

ARCHITECTURES = {name: f"HoliTom{stock}" for name, stock in STOCK.items()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build_checkpoint(name, tmp_path_factory.mktemp(name)) for name in STOCK}


@pytest.mark.parametrize(
    ("settings", "options", "complaint"),
    [
        (None, {}, "beside it in hf_overrides"),
        ({"method": "holitem"}, {}, "did you mean holitom"),
        ({"method": "holitom", "retention": 3}, {}, r"retention .* \(0, 1\], got 3"),
        ({"method": "holitom", "layer": 18}, {}, "inside the LLM"),
        ({"method": "holitom", "exact": False}, {}, "places before it has seen the video"),
        ({"method": "holitom", "colour": 1}, {}, "no parameter 'colour'"),
        ({"method": "holitom"}, {"video_pruning_rate": 0.9}, r"leave it out, and set retention to 0\.1"),
        ({"method": "holitom"}, {"enable_mm_embeds": True}, "no patches to look at"),
        ({"method": "holitom"}, {"mm_processor_kwargs": {"holitom": "evs"}}, "those of single requests stand"),
        ({"method": "holitom"}, {"mm_encoder_tp_mode": "data"}, "all heads of the vision tower"),
        ({"method": "holitom"}, {"compilation_config": {"compile_mm_encoder": True}}, "while it runs"),
    ],
)
def test_what_cannot_be_served_does_not_start(checkpoints: dict, settings: Any, options: dict, complaint: str):
    overrides = {"architectures": [ARCHITECTURES["qwen2_5_vl"]], **({"holitom": settings} if settings else {})}
    with (
        pytest.raises((ValueError, TypeError), match=complaint),
        engine(checkpoints["qwen2_5_vl"], "qwen2_5_vl", hf_overrides=overrides, **options),
    ):
        pass


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5"])  # the second has a check of vLLM's own
def test_settings_without_the_architecture_that_reads_them_do_not_start(name: str, checkpoints: dict):
    overrides = {"holitom": {"method": "holitom"}}
    with (
        pytest.raises(ValueError, match=rf"{ARCHITECTURES[name]}.* beside them"),
        engine(checkpoints[name], name, hf_overrides=overrides),
    ):
        pass


@pytest.mark.parametrize("config", [None, SERVED], ids=["stock", "ours"])
def test_what_vllm_itself_checks_and_sets_is_done_for_both(config: ServingConfig | None, checkpoints: dict):
    from vllm import EngineArgs

    name = "qwen3_5"
    arguments = engine_arguments(config, STOCK[name]) if config else {}
    made = EngineArgs(model=str(checkpoints[name]), **arguments).create_engine_config()
    assert made.cache_config.mamba_ssm_cache_dtype == "float32"  # what the checkpoint's config asks for


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_bfloat16_keeps_places_beyond_256(name: str, checkpoints: dict):
    """Frames 20 s apart: within each video the axis of time, or the text between frames, goes beyond 256."""
    asked = prompt(name, "x" * 300, ("video", 28, 1), " then ", ("video", 4, 2), " what?", fps=0.05)
    options = {"dtype": "bfloat16", "max_model_len": 4096, "max_num_batched_tokens": 4096}
    with engine(checkpoints[name], name, **options) as llm:
        want = answers(llm, asked)[0]
    with engine(checkpoints[name], name, WHOLE, **options) as llm:
        got = answers(llm, asked)[0]
        places = llm.apply_model(lambda model: model.video_places((14, 3, 4), CLIP))[0]
    assert places.max() > 256
    assert_same(got, want)


CLIP = {"second_per_grid_ts": 40.0, "timestamps": [40.0 * step for step in range(14)]}


def test_counters_count_every_video_of_a_prompt(checkpoints: dict):
    from prometheus_client import REGISTRY

    def read() -> list[float]:
        names = ("holitom_videos", "holitom_video_tokens_before", "holitom_video_tokens_after")
        return [REGISTRY.get_sample_value(f"{name}_total") or 0.0 for name in names]

    name = "llava_onevision"
    with engine(checkpoints[name], name, SERVED) as llm:
        before = read()  # what vLLM measures its memory with does not count
        assert before == [0, 0, 0] or before[0] > 0
        answers(llm, prompt(name, ("video", 4, 1), " ", ("video", 6, 2), ("image", 3)))
        once = read()
        answers(llm, prompt(name, ("video", 4, 1), " again"))  # found in the cache, and still in the prompt
        twice = read()
    after = [SERVED.token_count(frames, (4, 4)) for frames in (4, 6)]
    assert [b - a for a, b in zip(before, once, strict=True)] == [2, 160, sum(after)]
    assert [b - a for a, b in zip(once, twice, strict=True)] == [1, 64, after[0]]


def test_one_engine_after_another_is_registered_once():
    from vllm import ModelRegistry

    from holitom.integrations.vllm import register

    register()
    register()
    assert set(ARCHITECTURES.values()) <= set(ModelRegistry.get_supported_archs())
    called_by_vllm = {*STOCK.values(), *CALLED} - {*CALLED.values()}
    assert called_by_vllm <= set(ModelRegistry.get_supported_archs())


def test_settings_of_a_server_come_back_from_vllm(checkpoints: dict):
    config = ServingConfig.of("visionzip", retention=0.3)
    with engine(checkpoints["llava_onevision"], "llava_onevision", config) as llm:
        assert llm.apply_model(lambda model: model.compressor.config)[0] == config
