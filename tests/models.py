"""Tiny random models for tests, in which positions matter (queries and keys are scaled up)."""

from __future__ import annotations

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

VIDEO, IMAGE, PAD = 120, 121, 0


def llava_onevision(
    layers: int = 4, seed: int = 0, sharpen: float = 20.0, attention: str = "sdpa"
) -> LlavaOnevisionForConditionalGeneration:
    """56 px frames in 8 px patches: 7x7 pooled to 4x4 = 16 tokens a frame, and a newline after each video."""
    torch.manual_seed(seed)
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=8,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=128,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        eos_token_id=None,
        bos_token_id=None,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_grid_pinpoints=[[56, 56], [56, 112]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation=attention).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    with torch.no_grad():
        for layer in model.get_decoder().layers:
            layer.self_attn.q_proj.weight *= sharpen
            layer.self_attn.k_proj.weight *= sharpen
        model.model.image_newline.normal_()
    return model


def video(frames: int = 6, seed: int = 0, count: int = 1) -> torch.Tensor:
    """(count, T, 3, 56, 56) clips in which most of the picture stays the same within each of two scenes."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(count, 1, 3, 56, 56, generator=generator)
    clip = still + 0.02 * torch.randn(count, frames, 3, 56, 56, generator=generator)
    clip[:, :, :, 16:40, 16:40] = torch.randn(count, frames, 3, 24, 24, generator=generator)
    clip[:, frames // 2 :] += 0.5 * torch.randn(count, 1, 3, 56, 56, generator=generator)
    return clip


def words(count: int, seed: int = 0) -> list[int]:
    """Ids of ordinary tokens."""
    return torch.randint(1, 100, (count,), generator=torch.Generator().manual_seed(100 + seed)).tolist()


def prompt(*frames: int, before: int = 3, after: int = 5, seed: int = 0) -> list[int]:
    """Ids of a prompt with a video for each of ``frames``, and a word between two of them."""
    ids = words(before, seed)
    for number, count in enumerate(frames):
        ids += [VIDEO] * (count * 16 + 1) + words(1, seed + number + 50)
    return ids + words(after, seed + 7)


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Left-padded ids and mask."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
