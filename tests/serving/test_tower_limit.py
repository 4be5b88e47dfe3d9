"""The vision tower never encodes more at once than vLLM measured at start, whatever a method lets in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from engines import HYBRID, STOCK, answers, assert_same, engine, prompt
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.compressor import TowerLimit

FRAMES = {"llava_onevision": 600, "qwen2_5_vl": 800, "qwen3_vl": 40}  # two frames are 48 rows of Qwen2.5-VL
SERVED = ServingConfig.of("holitom", retention=0.05)
SMALL = {"max_model_len": 1024, "max_num_batched_tokens": 512, "limit_mm_per_prompt": {"video": 1, "image": 0}}
LOWERED = {"qwen3_vl": 20}  # its processor shrinks the frames of long videos, so no video is beyond what was measured


@pytest.fixture(scope="module", params=[name for name in STOCK if name not in HYBRID])  # these have Qwen3-VL's tower
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def tower(model: Any) -> Any:
    return model.visual if hasattr(model, "visual") else model.vision_tower


def test_a_long_video_is_encoded_in_parts_as_in_one_pass(name: str, tmp_path: Path):
    checkpoint = build_checkpoint(name, tmp_path / name)
    asked = prompt(name, ("video", FRAMES[name], 1), " ?")
    rows: list[int] = []

    def note(model: Any) -> int:
        tower(model).register_forward_pre_hook(
            lambda module, args, kwargs: rows.append(len(args[0] if args else next(iter(kwargs.values())))),
            with_kwargs=True,
        )
        return model.compressor.limit.rows

    def limit(rows: int) -> Any:
        def change(model: Any) -> None:
            model.compressor = dataclasses.replace(model.compressor, limit=TowerLimit(rows))

        return change

    with engine(checkpoint, name, SERVED, enable_prefix_caching=False, mm_processor_cache_gb=0, **SMALL) as llm:
        [measured] = llm.apply_model(note)
        if name in LOWERED:
            measured = LOWERED[name]
            llm.apply_model(limit(measured))
        in_parts = answers(llm, asked)[0]
        parts = rows.copy()
        rows.clear()
        llm.apply_model(limit(1 << 40))
        llm.llm_engine.reset_encoder_cache()
        in_one_pass = answers(llm, asked)[0]
    assert len(parts) > 1, (parts, measured)
    assert max(parts) <= measured < sum(parts)
    assert rows == [sum(parts)]
    assert_same(in_parts, in_one_pass)
