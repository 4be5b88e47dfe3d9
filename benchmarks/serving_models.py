"""Checkpoints with random weights in a published shape, laid out as vLLM wants them. Nothing is downloaded."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holitom.bench import presets
from holitom.video.synthetic.files import FPS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # tiny_checkpoints, imported where it is used


@dataclass(frozen=True)
class Shape:
    """What is served.

    Args:
        preset: of holitom.bench.
        architecture: what vLLM calls it.
        side: pixels of a square frame.
        frames: of each video.
        grid: (h, w) of a frame in the LLM.
        groups: how many of these a video has: one for each frame, or for each pair of frames.
    """

    preset: str
    architecture: str
    side: int
    frames: int
    grid: tuple[int, int]
    groups: int


def _small(name: str, config: dict[str, Any], side: int) -> None:
    presets.PRESETS[name] = presets.Preset(config, side, "none: a size that two CPU cores serve")


_TEXT = {  # about 25 M parameters in the layers
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 32768,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_IDS = {"vision_start_token_id": 12, "vision_end_token_id": 13, "image_token_id": 10, "video_token_id": 11}

_small(
    "small-llava-onevision",
    {
        "model_type": "llava_onevision",
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 112,
            "patch_size": 8,
            "vision_use_head": False,
        },
        "text_config": {"model_type": "qwen2", **_TEXT, "tie_word_embeddings": True},
        "image_token_index": 10,
        "video_token_index": 11,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
    },
    112,
)
_small(
    "small-qwen3-vl",
    {
        "model_type": "qwen3_vl",
        "vision_config": {
            "depth": 4,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_heads": 3,
            "out_hidden_size": 512,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2],
        },
        "text_config": {
            "model_type": "qwen3_vl_text",
            **_TEXT,
            "head_dim": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [12, 10, 10]},
            "tie_word_embeddings": True,
        },
        **_IDS,
        "tie_word_embeddings": True,
    },
    224,
)

_small(
    "small-qwen2.5-vl",
    {
        "model_type": "qwen2_5_vl",
        "vision_config": {
            "depth": 4,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_heads": 3,
            "out_hidden_size": 512,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            **_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
            "tie_word_embeddings": True,
        },
        **_IDS,
        "tie_word_embeddings": True,
    },
    196,
)

_LLAVA = "LlavaOnevisionForConditionalGeneration"
_QWEN2 = "Qwen2_5_VLForConditionalGeneration"
_QWEN3 = "Qwen3VLForConditionalGeneration"
SHAPES = {
    "small-llava-onevision": Shape("small-llava-onevision", _LLAVA, 112, 16, (7, 7), 16),
    "small-qwen2.5-vl": Shape("small-qwen2.5-vl", _QWEN2, 196, 32, (7, 7), 16),
    "small-qwen3-vl": Shape("small-qwen3-vl", _QWEN3, 224, 32, (7, 7), 16),
    "llava-onevision-7b": Shape("llava-onevision-7b", _LLAVA, 384, 32, (14, 14), 32),
    "qwen2.5-vl-7b": Shape("qwen2.5-vl-7b", _QWEN2, 392, 64, (14, 14), 32),
    "qwen3-vl-8b": Shape("qwen3-vl-8b", _QWEN3, 448, 64, (14, 14), 32),
}


def write(name: str, folder: Path, device: str, dtype: torch.dtype) -> Path:
    """The checkpoint with its weights; one that is there already stays as it is."""
    if (folder / "done").exists():
        return folder
    shape = SHAPES[name]
    model = presets.build(shape.preset, device, dtype)
    (_llava_files if "llava" in name else _qwen_files)(folder, shape, model)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    model.save_pretrained(folder)
    if "llava" in name:
        _hub_names(folder)
    (folder / "done").touch()
    if device == "cuda":  # the server wants the memory
        del model
        torch.cuda.empty_cache()
    return folder


def _llava_files(folder: Path, shape: Shape, model: Any) -> None:
    from tiny_checkpoints import build_llava_onevision, build_tokenizer

    tower = model.config.vision_config
    build_llava_onevision(folder, image_size=tower.image_size, patch_size=tower.patch_size, weights=False)
    tokenizer = build_tokenizer(folder)
    model.config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    model.config.video_token_index = tokenizer.convert_tokens_to_ids("<video>")
    model.config.image_grid_pinpoints = [[tower.image_size, tower.image_size]]


def _qwen_files(folder: Path, shape: Shape, model: Any) -> None:
    from tiny_checkpoints import QWEN_SPECIAL, QWEN_TEMPLATE, SPECIAL, build_tokenizer
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder, SPECIAL + QWEN_SPECIAL)
    config = model.config
    for field, token in zip(
        ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"), QWEN_SPECIAL, strict=True
    ):
        setattr(config, field, tokenizer.convert_tokens_to_ids(token))
    third = "qwen3" in shape.preset
    patch = config.vision_config.patch_size
    cut = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    longest = shape.side**2 * (shape.frames if third else 1)  # Qwen3-VL limits the pixels of a whole video
    size = {"shortest_edge": patch * patch * 4, "longest_edge": longest}
    sampling = {"fps": FPS} if third else {"do_sample_frames": False}  # every frame of the file
    video = (Qwen3VLVideoProcessor if third else Qwen2VLVideoProcessor)(size=size, **sampling, **cut)
    make = Qwen3VLProcessor if third else Qwen2_5_VLProcessor
    image = Qwen2VLImageProcessor(size={"shortest_edge": patch * patch * 4, "longest_edge": shape.side**2}, **cut)
    make(image, tokenizer, video, chat_template=QWEN_TEMPLATE).save_pretrained(folder)


def _hub_names(folder: Path) -> None:
    """The names of weights as in checkpoints on the hub: transformers leaves ``vision_model`` out when it saves."""
    from safetensors.torch import load_file, save_file

    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        named = {
            re.sub(r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", k): v for k, v in weights.items()
        }
        save_file(named, file, metadata={"format": "pt"})
    for index in folder.glob("*.safetensors.index.json"):
        text = index.read_text("utf-8")
        index.write_text(re.sub(r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", text), "utf-8")
