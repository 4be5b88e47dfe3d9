"""Models by name with random weights: the published shapes, built where they will run, nothing downloaded.

Time and memory do not depend on what weights say, only on how many there are. What a model would answer, and how many
tokens a method finds alike, do: a preset measures cost, never quality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from holitom.video.torchvision import hide_broken_torchvision

SCALE = 0.02  # standard deviation of the weights, as the models were initialised

_SUMMANDS = tuple(  # what ends a block's attention or MLP, by family
    f".{name}.weight" for name in ("o_proj", "down_proj", "out_proj", "fc2", "attn.proj", "mlp.linear_fc2")
)
_IMAGE, _VIDEO, _START, _END = 10, 11, 12, 13  # ids of placeholders; every preset's vocabulary has room below 100
_QWEN_TOKENS = {
    f"{name}_token_id": id_
    for name, id_ in (("image", _IMAGE), ("video", _VIDEO), ("vision_start", _START), ("vision_end", _END))
}
_SIGLIP = (1152, 4304, 26, 16)
_SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")  # of text and SigLIP alike


@dataclass(frozen=True)
class Preset:
    """A model's published shape.

    Attributes:
        config: for ``AutoConfig.for_model``, the model type included.
        side: pixels of a square frame, as the model's processor would hand it over.
        source: the checkpoint whose config this is.
    """

    config: Mapping[str, Any]
    side: int
    source: str


def _preset(kind: str, source: str, side: int, vision: dict[str, Any], text: dict[str, Any], **more: Any) -> Preset:
    tied = {"tie_word_embeddings": text["tie_word_embeddings"]}
    return Preset({"model_type": kind, "vision_config": vision, "text_config": text, **more, **tied}, side, source)


def _text(kind: str, shape: tuple[int, ...], tied: bool, **more: Any) -> dict[str, Any]:
    """Of widths of the residual stream and of the MLP, layers, heads, heads of keys, and vocabulary."""
    values = dict(zip((*_SHAPE, "num_key_value_heads", "vocab_size"), shape, strict=True))
    values |= {"max_position_embeddings": 131072, "tie_word_embeddings": tied}
    return {"model_type": kind, **values, **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")), **more}


def _llava_onevision(
    source: str, *text: int, tied: bool = False, tower: Sequence[int] = _SIGLIP, side: int = 384, patch: int = 14
) -> Preset:
    vision = {"model_type": "siglip_vision_model", **dict(zip(_SHAPE, tower, strict=True)), "vision_use_head": False}
    tokens = {"image_token_index": _IMAGE, "video_token_index": _VIDEO}
    features = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    vision |= {"image_size": side, "patch_size": patch}
    return _preset("llava_onevision", source, side, vision, _text("qwen2", text, tied), **tokens, **features)


def _qwen2_5_vl(name: str, *text: int, tied: bool = False) -> Preset:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": text[0],
        "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    decoder = _text("qwen2_5_vl_text", text, tied, rope_parameters=rope)
    return _preset("qwen2_5_vl", f"Qwen/Qwen2.5-VL-{name}-Instruct", 392, vision, decoder, **_QWEN_TOKENS)


def _qwen3_vl(name: str, *text: int, tower: tuple[int, int, int, list[int]], tied: bool = False) -> Preset:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}
    depth, width, intermediate, taps = tower
    vision = {
        "depth": depth, "hidden_size": width, "intermediate_size": intermediate, "num_heads": 16,
        "out_hidden_size": text[0], "patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": taps,
    }  # fmt: skip
    decoder = _text("qwen3_vl_text", text, tied, head_dim=128, rope_parameters=rope)
    return _preset("qwen3_vl", f"Qwen/Qwen3-VL-{name}-Instruct", 448, vision, decoder, **_QWEN_TOKENS)


_OV = "llava-hf/llava-onevision-qwen2-{}-ov-hf"
PRESETS: dict[str, Preset] = {
    "llava-onevision-0.5b": _llava_onevision(_OV.format("0.5b"), 896, 4864, 24, 14, 2, 152000, tied=True),
    "llava-onevision-7b": _llava_onevision(_OV.format("7b"), 3584, 18944, 28, 28, 4, 152128),
    "llava-onevision-72b": _llava_onevision(_OV.format("72b"), 8192, 29568, 80, 64, 8, 152128),
    "qwen2.5-vl-3b": _qwen2_5_vl("3B", 2048, 11008, 36, 16, 2, 151936, tied=True),
    "qwen2.5-vl-7b": _qwen2_5_vl("7B", 3584, 18944, 28, 28, 4, 152064),
    "qwen3-vl-2b": _qwen3_vl("2B", 2048, 6144, 28, 16, 8, 151936, tower=(24, 1024, 4096, [5, 11, 17]), tied=True),
    "qwen3-vl-8b": _qwen3_vl("8B", 4096, 12288, 36, 32, 8, 151936, tower=(27, 1152, 4304, [8, 16, 24])),
    "tiny": _llava_onevision(
        "none: a toy that runs in milliseconds", 48, 64, 4, 4, 2, 128, tied=True, tower=(32, 48, 2, 2), side=56, patch=8
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: when there is none, naming all.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def config(name: str) -> Any:
    """The preset's transformers config."""
    from transformers import AutoConfig

    values = dict(preset(name).config)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def build(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    attention: str = "sdpa",
    seed: int = 0,
) -> Any:
    """The preset's model with random weights, made on the device itself; it never ends an answer by itself.

    Args:
        name: of the preset.
        device: where the weights are made.
        dtype: of the weights.
        attention: "sdpa", "eager", "flash_attention_2", ...
        seed: of the random weights.

    Raises:
        ValueError: for an unknown name.
        RuntimeError: when the device's memory is too small.
    """
    hide_broken_torchvision()
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    # Weights are filled once, in place, below: torch's own initialisation would cost a pass over all of them more.
    with torch.device(device), no_init_weights():
        model = AutoModelForImageTextToText.from_config(config(name), dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    fill(model, seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Random matrices, norms of one, biases of zero, in place.

    What a block adds to the residual stream is scaled down by the root of the number of such summands, as in GPT-2:
    otherwise a deep random tower makes all patches alike, and a method would find nothing but static tokens.
    """
    generators: dict[torch.device, torch.Generator] = {}
    summands = [name for name, _ in model.named_parameters() if name.endswith(_SUMMANDS)]
    inside = sum("language_model." in name for name in summands)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1 and name.endswith("weight"):
            parameter.fill_(1)
        else:
            device, scale = parameter.device, SCALE
            if name.endswith(_SUMMANDS):
                scale *= (inside if "language_model." in name else len(summands) - inside) ** -0.5
            generator = generators.setdefault(device, torch.Generator(device).manual_seed(seed))
            parameter.normal_(std=scale, generator=generator)
