"""Tiny random models of every family whose cost is known, with the pixels of a video for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig, SiglipVisionConfig

PLAIN = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = {**PLAIN, "num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 512}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1]}


@dataclass(frozen=True)
class TinyFamily:
    """A config, and how one video of ``frames`` frames is handed to ``get_video_features`` (or images)."""

    config: dict[str, Any]
    frames: int
    grid: tuple[int, int] | None  # as given to vision_flops; None where the tower's resolution is fixed
    pixels: Callable[[], dict[str, torch.Tensor]]


def config(name: str, **text: Any) -> Any:
    """The family's config; ``text`` overrides values of the decoder's config."""
    values = {**FAMILIES[name].config}
    values["text_config"] = {**values["text_config"], **text}
    return AutoConfig.for_model(values.pop("model_type"), **values)


def build(name: str, attention: str = "eager", **text: Any) -> torch.nn.Module:
    """A model of that config with random weights."""
    torch.manual_seed(0)
    options = {"attn_implementation": attention, "experts_implementation": "eager"}
    return AutoModelForImageTextToText.from_config(config(name, **text), **options).eval()


def encode(name: str, model: torch.nn.Module) -> None:
    """Run the vision tower and the projector on the family's video."""
    inner = model.model
    features = getattr(inner, "get_video_features", None) or inner.get_image_features
    features(**FAMILIES[name].pixels())


def _patches(
    steps: int, rows: int, columns: int, values: int, kind: str = "pixel_values_videos", **more: torch.Tensor
) -> dict[str, torch.Tensor]:
    grid = torch.tensor([[steps, rows, columns]])
    return {kind: torch.randn(steps * rows * columns, values), "video_grid_thw": grid, **more}


CLIP = CLIPVisionConfig(
    hidden_size=20, intermediate_size=36, num_hidden_layers=3, num_attention_heads=2, image_size=20, patch_size=5
)
SIGLIP = SiglipVisionConfig(
    hidden_size=20,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=15,
    patch_size=5,
    vision_use_head=False,
)
QWEN_TOWER = {
    "depth": 4,
    "hidden_size": 16,
    "intermediate_size": 28,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "out_hidden_size": 24,
}
HEARING = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "d_model": 16, "output_dim": 24}

FAMILIES: dict[str, TinyFamily] = {
    "llava_onevision": TinyFamily(
        {
            "model_type": "llava_onevision",
            "vision_config": SIGLIP.to_dict(),
            "text_config": {"model_type": "qwen2", **GROUPED},
            "image_token_index": 99,
            "video_token_index": 100,
        },
        3,
        None,
        lambda: {"pixel_values_videos": torch.randn(1, 3, 3, 15, 15)},
    ),
    "llava_next_video": TinyFamily(
        {
            "model_type": "llava_next_video",
            "vision_config": CLIP.to_dict(),
            "text_config": {"model_type": "llama", **GROUPED},
            "image_token_index": 99,
            "video_token_index": 100,
        },
        2,
        None,
        lambda: {"pixel_values_videos": torch.randn(1, 2, 3, 20, 20)},
    ),
    "video_llava": TinyFamily(
        {
            "model_type": "video_llava",
            "vision_config": CLIP.to_dict(),
            "text_config": {"model_type": "llama", **GROUPED},
            "image_token_index": 99,
            "video_token_index": 100,
        },
        2,
        None,
        lambda: {"pixel_values_videos": torch.randn(1, 2, 3, 20, 20)},
    ),
    "qwen2_vl": TinyFamily(
        {
            "model_type": "qwen2_vl",
            "vision_config": {
                "depth": 2,
                "embed_dim": 16,
                "hidden_size": 24,
                "mlp_ratio": 3,
                "num_heads": 2,
                "patch_size": 4,
            },
            "text_config": {"model_type": "qwen2_vl_text", **GROUPED, "rope_parameters": MROPE},
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
    "qwen2_5_vl": TinyFamily(
        {
            "model_type": "qwen2_5_vl",
            "vision_config": {**QWEN_TOWER, "window_size": 16, "fullatt_block_indexes": [1, 3]},
            "text_config": {"model_type": "qwen2_5_vl_text", **GROUPED, "rope_parameters": MROPE},
        },
        3,  # an odd frame fills a step of its own
        (10, 6),
        lambda: _patches(2, 10, 6, 3 * 2 * 4 * 4),
    ),
    "qwen3_vl": TinyFamily(
        {
            "model_type": "qwen3_vl",
            "vision_config": {**QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2]},
            "text_config": {"model_type": "qwen3_vl_text", **GROUPED, "head_dim": 8, "rope_parameters": MROPE},
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
    "qwen3_vl_moe": TinyFamily(
        {
            "model_type": "qwen3_vl_moe",
            "vision_config": {**QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [1]},
            "text_config": {
                "model_type": "qwen3_vl_moe_text",
                **GROUPED,
                "head_dim": 8,
                "rope_parameters": MROPE,
                "num_experts": 5,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 12,
                "mlp_only_layers": [1],
            },
        },
        2,
        (4, 4),
        lambda: _patches(1, 4, 4, 3 * 2 * 4 * 4),
    ),
    "qwen2_5_omni_thinker": TinyFamily(
        {
            "model_type": "qwen2_5_omni_thinker",
            "vision_config": {**QWEN_TOWER, "window_size": 16, "fullatt_block_indexes": [1, 3]},
            "text_config": {"model_type": "qwen2_5_omni_text", **GROUPED, "rope_parameters": MROPE},
            "audio_config": HEARING,
        },
        3,
        (10, 6),
        lambda: _patches(2, 10, 6, 3 * 2 * 4 * 4),
    ),
    "qwen3_omni_moe_thinker": TinyFamily(
        {
            "model_type": "qwen3_omni_moe_thinker",
            "vision_config": {**QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [1]},
            "text_config": {
                "model_type": "qwen3_omni_moe_text",
                **GROUPED,
                "head_dim": 8,
                "rope_parameters": MROPE,
                "num_experts": 5,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 12,
                "mlp_only_layers": [1],
            },
            "audio_config": HEARING,
        },
        2,
        (4, 4),
        lambda: _patches(1, 4, 4, 3 * 2 * 4 * 4),
    ),
    "qwen3_5": TinyFamily(
        {
            "model_type": "qwen3_5",
            "vision_config": {**QWEN_TOWER, "num_position_embeddings": 16},
            "text_config": {
                "model_type": "qwen3_5_text",
                **GROUPED,
                "num_hidden_layers": 4,
                "head_dim": 8,
                "linear_key_head_dim": 6,
                "linear_value_head_dim": 10,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "rope_parameters": {**MROPE, "partial_rotary_factor": 0.75},
            },
        },
        4,
        (4, 4),
        lambda: _patches(2, 4, 4, 3 * 2 * 4 * 4),
    ),
    "qwen3_5_moe": TinyFamily(
        {
            "model_type": "qwen3_5_moe",
            "vision_config": {**QWEN_TOWER, "num_position_embeddings": 16},
            "text_config": {
                "model_type": "qwen3_5_moe_text",
                **GROUPED,
                "head_dim": 8,
                "layer_types": ["full_attention"] * 3,
                "rope_parameters": {**MROPE, "partial_rotary_factor": 0.75},
                "num_experts": 5,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 12,
                "shared_expert_intermediate_size": 14,
            },
        },
        2,
        (4, 4),
        lambda: _patches(1, 4, 4, 3 * 2 * 4 * 4),
    ),
    "gemma4": TinyFamily(
        {
            "model_type": "gemma4",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 28,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "patch_size": 4,
                "pooling_kernel_size": 3,
                "position_embedding_size": 16,
            },
            "text_config": {
                "model_type": "gemma4_text",
                **GROUPED,
                "num_hidden_layers": 6,
                "head_dim": 8,
                "global_head_dim": 12,
                "layer_types": ["sliding_attention", "full_attention"] * 3,
                "sliding_window": 4,
                "num_kv_shared_layers": 2,
                "use_double_wide_mlp": True,
                "hidden_size_per_layer_input": 6,
                "vocab_size_per_layer_input": 101,
            },
            "audio_config": None,
            "image_token_id": 99,
            "video_token_id": 100,
        },
        2,
        (6, 3),
        lambda: {
            "pixel_values_videos": torch.rand(2, 18, 48),
            "video_position_ids": torch.tensor([[x, y] for y in range(6) for x in range(3)]).expand(2, -1, -1),
            "num_frames_per_video": torch.tensor([2]),
        },
    ),
    "internvl": TinyFamily(
        {
            "model_type": "internvl",
            "vision_config": {
                "hidden_size": 20,
                "intermediate_size": 36,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [16, 16],
                "patch_size": [4, 4],
            },
            "text_config": {"model_type": "qwen3", **GROUPED, "head_dim": 8},
            "image_token_id": 99,
        },
        3,
        None,
        lambda: {"pixel_values": torch.randn(3, 3, 16, 16)},
    ),
    "video_llama_3": TinyFamily(
        {
            "model_type": "video_llama_3",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 36,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 4,
            },
            "text_config": {"model_type": "qwen2", **GROUPED},
        },
        3,
        (4, 6),
        lambda: _patches(3, 4, 6, 3 * 4 * 4, video_merge_sizes=torch.tensor([2])),
    ),
    "glm4v": TinyFamily(
        {
            "model_type": "glm4v",
            "vision_config": {**QWEN_TOWER, "image_size": 16},
            "text_config": {"model_type": "glm4v_text", **GROUPED, "rope_parameters": MROPE},
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
    "smolvlm": TinyFamily(
        {
            "model_type": "smolvlm",
            "vision_config": {
                "hidden_size": 20,
                "intermediate_size": 36,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
            },
            "text_config": {"model_type": "llama", **GROUPED},
            "scale_factor": 2,
            "image_token_id": 99,
        },
        3,
        None,
        lambda: {"pixel_values": torch.randn(1, 3, 3, 16, 16)},
    ),
    "glm46v": TinyFamily(
        {
            "model_type": "glm46v",
            "vision_config": {"model_type": "glm4v_vision", **QWEN_TOWER, "image_size": 16},
            "text_config": {"model_type": "glm4v_text", **GROUPED, "rope_parameters": MROPE},
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
    "glm4v_moe": TinyFamily(
        {
            "model_type": "glm4v_moe",
            "vision_config": {**QWEN_TOWER, "image_size": 16},
            "text_config": {
                "model_type": "glm4v_moe_text",
                **GROUPED,
                "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 12,
                "n_shared_experts": 2,
                "first_k_dense_replace": 1,
                "n_group": 1,
                "topk_group": 1,
            },
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
    "lfm3_vl": TinyFamily(
        {
            "model_type": "lfm3_vl",
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 28,
                "num_hidden_layers": 5,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "patch_size": 4,
            },
            "text_config": {
                "model_type": "lfm3",
                **GROUPED,
                "num_hidden_layers": 4,
                "head_dim": 8,
                "sliding_window": 6,
                "pad_token_id": 0,
                "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
            },
            "projector_hidden_size": 20,
        },
        4,
        (4, 6),
        lambda: _patches(2, 4, 6, 3 * 2 * 4 * 4),
    ),
}
if "lfm3_vl" not in CONFIG_MAPPING:
    del FAMILIES["lfm3_vl"]  # the installed transformers is older
