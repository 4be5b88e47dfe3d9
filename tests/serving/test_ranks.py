"""Two ranks, each with half the heads of the vision tower, choose and say the same as one."""

from __future__ import annotations

import os
from pathlib import Path

import backend_families
import pytest
from engines import answers, engine, said, two_videos_and_an_image
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig

NAME = "qwen2_5_vl"
SUMS = 1e-4  # halves of sums add up to slightly other sums, which sharpened weights enlarge


def test_ranks_that_were_not_shown_to_agree_do_not_start(tmp_path: Path):
    name = "video_llama_3"
    checkpoint = backend_families.build_checkpoint(name, tmp_path / name, heads=2)
    options = backend_families.backend(name, ServingConfig.of("visionzip", retention=0.25))
    with (
        pytest.raises(ValueError, match="tensor-parallel-size 2 does not go with VideoLlama3"),
        engine(checkpoint, name, tensor_parallel_size=2, **options),
    ):
        pass


@pytest.mark.parametrize("backend", [False, True], ids=["own class", "Transformers backend"])
def test_two_ranks_answer_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: bool):
    monkeypatch.setitem(os.environ, "VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    name = "llava_onevision" if backend else NAME
    config = ServingConfig.of("visionzip", retention=0.25)  # reads scores and keys of all heads
    if backend:
        checkpoint = backend_families.build_checkpoint(name, tmp_path / name, heads=2)
        asked = backend_families.prompt(name, checkpoint, *backend_families.parts(name))
        options, config = backend_families.backend(name, config), None
    else:
        checkpoint = build_checkpoint(name, tmp_path / name)
        asked, options = two_videos_and_an_image(name), {}
    with engine(checkpoint, name, config, **options) as llm:
        tokens, chances = said(answers(llm, asked)[0])
    with engine(checkpoint, name, config, tensor_parallel_size=2, distributed_executor_backend="mp", **options) as llm:
        got, likely = said(answers(llm, asked)[0])
    assert got == tokens
    assert max(abs(one - other) for one, other in zip(likely, chances, strict=True)) < SUMS
