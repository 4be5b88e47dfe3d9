"""Tiny checkpoints on disk, laid out like those on the hub: weights, tokenizer, processor files, chat template."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
CANVASES = [[56, 56], [56, 112], [112, 56], [112, 112], [56, 168]]

# The layout of llava-hf/llava-onevision-qwen2-7b-ov-hf: images first, then videos, then text.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + ' ' }}
{%- for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}
{%- for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- if message['role'] == 'assistant' %}{% generation %}{{ '\\n' + part['text'] }}{% endgeneration %}
{%- else %}{{ '\\n' + part['text'] }}{% endif -%}
{%- endfor -%}
{{ '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""


def build_tokenizer(path: Path, special: list[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes: any text goes in and comes out, one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[2], additional_special_tokens=special[1:]
    )
    fast.save_pretrained(path)
    return fast


def build_llava_onevision(
    path: Path | str,
    *,
    layers: int = 4,
    hidden: int = 64,
    seed: int = 0,
    sharpen: float = 1.0,
    image_size: int = 56,
    patch_size: int = 8,
    weights: bool = True,
) -> Path:
    """A random LLaVA-OneVision: 56 px frames in 8 px patches, pooled to 4 x 4 = 16 tokens a frame.

    Args:
        path: the folder to fill.
        layers, hidden: depth and width of the language model.
        seed: of the weights.
        sharpen: factor on the weights of queries and keys; at 20, what a token attends to depends on its position.
        image_size, patch_size: of the vision tower, in pixels.
        weights: False writes only what preprocessing needs.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(path)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=patch_size,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=eos,
        pad_token_id=pad,
        bos_token_id=None,
    )
    canvases = [[side * image_size // 56 for side in canvas] for canvas in CANVASES]
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=canvases,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    if weights:
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(config).eval()
        with torch.no_grad():
            for layer in model.get_decoder().layers:
                layer.self_attn.q_proj.weight *= sharpen
                layer.self_attn.k_proj.weight *= sharpen
            model.model.image_newline.normal_()
        model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=pad, do_sample=False)
        model.save_pretrained(path)
    else:
        config.architectures = ["LlavaOnevisionForConditionalGeneration"]
        config.save_pretrained(path)
    _write_processor(path, image_size, (image_size // patch_size) ** 2, canvases)
    return path


def _write_processor(path: Path, image_size: int, patches: int, canvases: list[list[int]]) -> None:
    pixels = {
        "crop_size": None,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "LlavaOnevisionProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": image_size, "width": image_size},
    }
    files = {
        "preprocessor_config.json": {
            **pixels,
            "do_pad": True,
            "image_grid_pinpoints": canvases,
            "image_processor_type": "LlavaOnevisionImageProcessor",
        },
        "video_preprocessor_config.json": {**pixels, "video_processor_type": "LlavaOnevisionVideoProcessor"},
        "processor_config.json": {
            "image_token": "<image>",
            "num_image_tokens": patches,
            "processor_class": "LlavaOnevisionProcessor",
            "video_token": "<video>",
            "vision_aspect_ratio": "anyres_max_9",
            "vision_feature_select_strategy": "full",
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }
    for name, content in files.items():
        (path / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


QWEN_SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' %}{{ part['text'] }}
{%- else %}{{ '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' }}{% endif -%}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""


def build_qwen_vl_files(path: Path | str, version: int = 3) -> Path:
    """What preprocessing for Qwen2.5-VL (``version=2``) or Qwen3-VL needs: config, tokenizer, processor files."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    path = Path(path)
    tokenizer = build_tokenizer(path, SPECIAL + QWEN_SPECIAL)
    if version == 2:
        config, make, video = Qwen2_5_VLConfig(), Qwen2_5_VLProcessor, Qwen2VLVideoProcessor()
    else:
        config, make, video = Qwen3VLConfig(), Qwen3VLProcessor, Qwen3VLVideoProcessor()
    config.save_pretrained(path)
    make(Qwen2VLImageProcessor(), tokenizer, video, chat_template=QWEN_TEMPLATE).save_pretrained(path)
    return path
