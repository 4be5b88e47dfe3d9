"""Tiny random checkpoints with weights that vLLM and transformers both load, in which positions matter."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import QWEN_SPECIAL, QWEN_TEMPLATE, SPECIAL, build_llava_onevision, build_tokenizer
from transformers import (
    Cosmos3OmniConfig,
    Cosmos3OmniForConditionalGeneration,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

SHARPEN = 20
SHARPEN_LINEAR = 4  # in bfloat16, whose rounding grows with it
LENGTH = 4096
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4]},
}
TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 128,
}
LINEAR = {
    "num_hidden_layers": 4,  # every fourth has attention
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "mamba_ssm_dtype": "float32",  # as in published checkpoints
    "rope_parameters": {**TEXT["rope_parameters"], "partial_rotary_factor": 0.5, "mrope_section": [4, 2, 2]},
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,  # published configs say it, transformers does it in any case
}
SHARED = {"shared_expert_intermediate_size": 32}
DEEPSTACK = {"deepstack_visual_indexes": [0, 1]}
CLASSES = {
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration, DEEPSTACK, {}),
    "cosmos3": (Cosmos3OmniConfig, Cosmos3OmniForConditionalGeneration, DEEPSTACK, {}),
    "qwen3_vl_moe": (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, DEEPSTACK, EXPERTS),
    "qwen3_5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration, {}, LINEAR),
    "qwen3_5_moe": (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration, {}, {**LINEAR, **EXPERTS, **SHARED}),
}


def build_checkpoint(name: str, path: Path) -> Path:
    """A model of one of the families of ``engines.STOCK`` at ``path``."""
    return _llava(path) if name == "llava_onevision" else _qwen(name, path)


def _llava(path: Path) -> Path:
    build_llava_onevision(path, layers=3, hidden=128, sharpen=SHARPEN)
    file = path / "model.safetensors"
    weights = load_file(file)
    renamed = {}
    for name, value in weights.items():
        # as on the hub; transformers 5.19 leaves vision_model out when it saves
        name = re.sub(r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)
        sharper = 12 if re.search(r"vision_tower.*[qk]_proj\.weight", name) else 1
        renamed[name] = value * sharper
    save_file(renamed, file, metadata={"format": "pt"})
    return path


def _qwen(name: str, path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(path, SPECIAL + QWEN_SPECIAL)
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in ids.items()}
    text = {**TEXT, "vocab_size": -(-len(tokenizer) // 8) * 8, "eos_token_id": None, "bos_token_id": None}
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}
    if name == "qwen2_5_vl":
        vision = {**TOWER, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)
        model = Qwen2_5_VLForConditionalGeneration
        processor = Qwen2_5_VLProcessor(
            Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size), chat_template=QWEN_TEMPLATE
        )
    else:
        kind, model, seen, more = CLASSES[name]
        text = {**text, "head_dim": 32, **more}
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_interleaved": True}
        config = kind(vision_config={**TOWER, "num_position_embeddings": 64, **seen}, text_config=text, **ids)
        # vLLM normalises images and videos alike
        half = [0.5, 0.5, 0.5]
        settings = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "image_mean": half, "image_std": half}
        processor = Qwen3VLProcessor(
            Qwen2VLImageProcessor(size=size, **settings),
            tokenizer,
            Qwen3VLVideoProcessor(size=size, **settings),
            chat_template=QWEN_TEMPLATE,
        )
    torch.manual_seed(0)
    built = model(config).eval()
    with torch.no_grad():
        for part, module in built.named_modules():
            if part.endswith(("q_proj", "k_proj")):
                module.weight *= SHARPEN_LINEAR if name.startswith("qwen3_5") else SHARPEN
            if part.endswith("attn.qkv"):
                module.weight *= 12
            if part.endswith(("q_norm", "k_norm")):
                module.weight.add_(3)
    built.generation_config = GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id)
    built.save_pretrained(path)
    if name == "qwen3_vl_moe":
        file = path / "model.safetensors"
        # as on the hub; transformers 5.19 saves experts as it holds them, and loads both
        weights = {
            key: value.transpose(1, 2).contiguous() if ".experts." in key else value
            for key, value in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
    if name == "cosmos3":  # as published: weights in folders of a pipeline, and vLLM's name for the class
        (path / "transformer").mkdir()
        (path / "transformer" / "model.safetensors").symlink_to(path / "model.safetensors")
        config = path / "config.json"
        config.write_text(config.read_text().replace("Cosmos3OmniForCond", "Cosmos3ForCond"))
    processor.save_pretrained(path)
    if not (path / "chat_template.json").exists():
        (path / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    return path
