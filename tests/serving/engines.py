"""vLLM engines inside the test's own process, and prompts for them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holitom.integrations.vllm import ServingConfig, engine_arguments

STOCK = {
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "cosmos3": "Cosmos3OmniForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
}
HYBRID = ("qwen3_5", "qwen3_5_moe")  # linear attention on a CPU knows bfloat16 alone
TIMED = ("qwen3_vl", "qwen3_vl_moe", "cosmos3", *HYBRID)  # have the processor and vision tower of the first
PLACEHOLDERS = ("<|vision_start|><|video_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>")
LLAVAS_PLACEHOLDERS = ("<video>", "<image>")
STEPS = 6
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
SERVED = ServingConfig.of("holitom", retention=0.25)
WHOLE = ServingConfig.of("holitom", retention=1.0)


def clip(frames: int, seed: int) -> np.ndarray:
    """(frames, 84, 112, 3) uint8: the upper half barely changes, the lower half is new in every frame."""
    random = np.random.default_rng(seed)
    still = random.integers(0, 250, (1, 84, 112, 3))
    moving = still + random.integers(0, 4, (frames, 84, 112, 3))
    moving[:, 42:] = random.integers(0, 255, (frames, 42, 112, 3))
    return moving.astype(np.uint8)


def prompt(name: str, *parts: Any, fps: float = 2.0) -> dict[str, Any]:
    """A prompt of texts, ("video", frames, seed) and ("image", seed), as ``LLM.generate`` takes it."""
    text, videos, images = "<|im_start|>user\n", [], []
    for_video, for_image = LLAVAS_PLACEHOLDERS if name == "llava_onevision" else PLACEHOLDERS
    for part in parts:
        if isinstance(part, str):
            text += part
        elif part[0] == "video":
            text += for_video
            videos.append(video(name, clip(*part[1:]), fps))
        else:
            text += for_image
            images.append(Image.fromarray(clip(1, part[1])[0]))
    media = {key: value for key, value in (("video", videos), ("image", images)) if value}
    return {"prompt": text + "<|im_end|>\n<|im_start|>assistant\n", "multi_modal_data": media}


def video(name: str, frames: np.ndarray, fps: float = 2.0) -> Any:
    """A video as the model's parser wants it: with metadata where timestamps are written."""
    return frames if name == "llava_onevision" else (frames, metadata(len(frames), fps))


def metadata(frames: int, fps: float = 2.0) -> dict[str, Any]:
    """Of a video all of whose frames are shown."""
    return {
        "fps": fps,
        "duration": frames / fps,
        "total_num_frames": frames,
        "frames_indices": list(range(frames)),
        "video_backend": "opencv",
        "do_sample_frames": False,
    }


def two_videos_and_an_image(name: str, first: int = 8, second: int = 6) -> dict[str, Any]:
    """The prompt that every equality is shown with."""
    return prompt(name, "look ", ("video", first, 1), " then ", ("image", 3), " and ", ("video", second, 2), " what?")


@contextmanager
def engine(
    path: Path,
    name: str,
    config: ServingConfig | None = None,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[Any]:
    """An ``LLM`` on a tiny checkpoint; ``config`` None is stock vLLM."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**ENVIRONMENT, **(environment or {})}.items():
            patch.setitem(os.environ, key, value)
        from vllm import LLM, envs
        from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

        envs.disable_envs_cache()  # an engine before this one has looked at them
        settings = {
            "dtype": "bfloat16" if name in HYBRID else "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": 1 << 27,
            "max_model_len": 2048,
            "max_num_batched_tokens": 2048,
            "max_num_seqs": 8,
            "distributed_executor_backend": "uni",
            "limit_mm_per_prompt": {"video": 3, "image": 2},
            "disable_log_stats": False,
            **(engine_arguments(config, STOCK[name]) if config else {}),
            **options,
        }
        llm = LLM(str(path), **settings)
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()
            destroy_model_parallel()  # a mixture of experts needs another one
            destroy_distributed_environment()


def answers(llm: Any, *prompts: dict[str, Any], steps: int = STEPS) -> list[Any]:
    """What the engine says to some prompts at once, greedily."""
    from vllm import SamplingParams

    return llm.generate(
        list(prompts), SamplingParams(max_tokens=steps, temperature=0, logprobs=1, ignore_eos=True), use_tqdm=False
    )


def said(answer: Any) -> tuple[list[int], list[float]]:
    """The tokens of an answer and their log-probabilities."""
    output = answer.outputs[0]
    return list(output.token_ids), [
        by[token].logprob for token, by in zip(output.token_ids, output.logprobs, strict=True)
    ]


def assert_same(got: Any, want: Any, tolerance: float = 1e-6) -> None:
    """Equal tokens, log-probabilities within the tolerance, for as many steps as are wanted."""
    (tokens, chances), (expected, likely) = said(got), said(want)
    assert len(expected) >= STEPS
    assert tokens[: len(expected)] == expected
    assert max(abs(one - other) for one, other in zip(chances, likely, strict=False)) <= tolerance
