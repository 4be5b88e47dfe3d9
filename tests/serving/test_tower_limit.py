"""The vision tower never encodes more at once than vLLM measured at start, whatever a method lets in."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
from engines import STOCK, TIMED, answers, assert_same, engine, prompt
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.compressor import TowerLimit

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from methods import peak_bytes

FRAMES = {"llava_onevision": 600, "qwen2_5_vl": 800, "qwen3_vl": 40}  # two frames are 48 rows of Qwen2.5-VL
SERVED = ServingConfig.of("holitom", retention=0.05)
SMALL = {"max_model_len": 1024, "max_num_batched_tokens": 512, "limit_mm_per_prompt": {"video": 1, "image": 0}}
LOWERED = {"qwen3_vl": 20}  # its processor shrinks the frames of long videos, so no video is beyond what was measured


@pytest.fixture(scope="module", params=[name for name in STOCK if name not in TIMED[1:]])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def tower(model: Any) -> Any:
    return model.visual if hasattr(model, "visual") else model.vision_tower


def encode_what_is_measured(vllm_config: Any, model: Any) -> None:
    """Runs the tower on the inputs that vLLM measures its memory with at start."""
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.encoder_budget import MultiModalBudget
    from vllm.multimodal.utils import group_and_batch_mm_kwargs

    items = MultiModalBudget(vllm_config, MULTIMODAL_REGISTRY, enable_cache=False).get_dummy_encoder_profile_inputs()
    for _, _, kwargs in group_and_batch_mm_kwargs(items):
        model.embed_multimodal(**kwargs)


def test_a_long_video_is_encoded_in_parts_as_in_one_pass(name: str, tmp_path: Path):
    checkpoint = build_checkpoint(name, tmp_path / name)
    asked = prompt(name, ("video", FRAMES[name], 1), " ?")
    rows: list[int] = []
    peaks: list[int] = []

    def note(model: Any) -> int:
        forward = tower(model).forward

        @functools.wraps(forward)
        def noting(*args: Any, **kwargs: Any) -> Any:
            rows.append(len(args[0] if args else next(iter(kwargs.values()))))
            encoded = []
            peaks.append(peak_bytes(lambda: encoded.append(forward(*args, **kwargs))))
            return encoded[0]

        tower(model).forward = noting
        return model.compressor.limit.rows

    def limit(rows: int) -> Any:
        def change(model: Any) -> None:
            model.compressor = dataclasses.replace(model.compressor, limit=TowerLimit(rows))

        return change

    with engine(checkpoint, name, SERVED, enable_prefix_caching=False, mm_processor_cache_gb=0, **SMALL) as llm:
        [measured] = llm.apply_model(note)
        llm.apply_model(functools.partial(encode_what_is_measured, llm.llm_engine.vllm_config))
        at_start = max(peaks)
        assert max(rows) == measured
        rows.clear()
        peaks.clear()
        if name in LOWERED:
            measured = LOWERED[name]
            llm.apply_model(limit(measured))
        in_parts = answers(llm, asked)[0]
        parts, in_parts_peak = rows.copy(), max(peaks)
        rows.clear()
        peaks.clear()
        llm.apply_model(limit(1 << 40))
        llm.llm_engine.reset_encoder_cache()
        in_one_pass = answers(llm, asked)[0]
    assert len(parts) > 1, (parts, measured)
    assert max(parts) <= measured < sum(parts)
    assert rows == [sum(parts)]
    assert in_parts_peak <= 1.1 * at_start
    if name == "qwen2_5_vl":
        assert sum(parts) == 19_200
        assert peaks[0] > 3 * at_start, "what would have been needed without parts"
    assert_same(in_parts, in_one_pass)


def test_videos_that_take_more_positions_than_there_are_are_refused(tmp_path: Path):
    """Qwen2.5-VL counts a video's seconds; positions beyond vLLM's table would end the engine."""
    name = "qwen2_5_vl"
    few = {"max_model_len": 1024, "limit_mm_per_prompt": {"video": 3, "image": 0}}
    with engine(build_checkpoint(name, tmp_path / name), name, SERVED, **few) as llm:
        places = 4 * llm.llm_engine.model_config.hf_text_config.max_position_embeddings - few["max_model_len"]
        rate = 4 * 2 * 2 / places  # of 8 frames, 4 steps of two frames, which take two positions a second
        most = prompt(name, ("video", 8, 1), " ?", fps=1.01 * rate)
        alone = answers(llm, most)[0]
        for videos in (1, 2, 3):  # and the last two times with what the processor has cached
            far = prompt(name, *[("video", 8, 1)] * videos, " ?", fps=0.99 * rate * min(videos, 2))
            with pytest.raises(ValueError, match="send frames that lie closer together"):
                answers(llm, far)
        assert_same(answers(llm, most)[0], alone)
