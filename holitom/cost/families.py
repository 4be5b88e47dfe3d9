"""From a transformers config to a :class:`~holitom.cost.shape.ModelShape`, family by family.

Only attributes of the config are read; no model is built and transformers is not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .shape import AttentionShape, DeltaNetShape, ExpertsShape, LayerShape, ModelShape, VisionShape

__all__ = ["SUPPORTED_FAMILIES", "model_shape"]

# Decoders of plain layers: grouped-query softmax attention and a gated MLP or experts.
_PLAIN_DECODERS = {
    *("llama", "mistral", "qwen2", "qwen3", "qwen3_moe"),
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_text"),
}


def model_shape(config: Any) -> ModelShape:
    """The shape of a video language model; the public door is :meth:`ModelShape.from_config`."""
    family = getattr(config, "model_type", None)
    builder = _VISION.get(family) if isinstance(family, str) else None
    if builder is None or not isinstance(family, str):
        raise ValueError(
            f"the cost of {type(config).__name__} (model type {family!r}) is not known; "
            f"known model types: {', '.join(SUPPORTED_FAMILIES)}"
        )
    text = config.text_config
    return ModelShape(
        family=family,
        hidden=text.hidden_size,
        vocab=text.vocab_size,
        layers=_decoder_layers(config, text),
        vision=builder(config, config.vision_config, text.hidden_size),
        input_weights=_per_layer_input_weights(text),
    )


# Decoders ---------------------------------------------------------------------------------------------------------


def _decoder_layers(config: Any, text: Any) -> tuple[LayerShape, ...]:
    count = range(text.num_hidden_layers)
    if text.model_type in _PLAIN_DECODERS:
        return tuple(_plain_layer(text, index) for index in count)
    if text.model_type in ("qwen3_5_text", "qwen3_5_moe_text"):
        return tuple(_qwen3_5_layer(text, index) for index in count)
    if text.model_type == "gemma4_text":
        return tuple(_gemma4_layer(text, index) for index in count)
    raise ValueError(
        f"{type(config).__name__} with a decoder of {type(text).__name__} (model type {text.model_type!r}) has a cost "
        f"that is not known; known decoders: {', '.join(sorted(_PLAIN_DECODERS))}, qwen3_5_text, qwen3_5_moe_text, "
        "gemma4_text"
    )


def _attention(text: Any, window: int | None, *, output_gate: bool = False) -> AttentionShape:
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_heads = text.num_key_value_heads or text.num_attention_heads
    return AttentionShape(text.num_attention_heads, kv_heads, head_dim, window, output_gate=output_gate)


def _plain_layer(text: Any, index: int) -> LayerShape:
    types = getattr(text, "layer_types", None)
    sliding = types[index] == "sliding_attention" if types else text.model_type == "mistral"
    attention = _attention(text, getattr(text, "sliding_window", None) if sliding else None)
    experts = getattr(text, "num_experts", 0) or 0
    dense_only = getattr(text, "mlp_only_layers", None) or ()
    if not experts or index in dense_only or (index + 1) % text.decoder_sparse_step:
        return LayerShape(attention, text.intermediate_size)
    return LayerShape(attention, 0, experts=ExpertsShape(experts, text.num_experts_per_tok, text.moe_intermediate_size))


def _qwen3_5_layer(text: Any, index: int) -> LayerShape:
    attention: AttentionShape | DeltaNetShape
    if text.layer_types[index] == "linear_attention":
        attention = DeltaNetShape(
            key_heads=text.linear_num_key_heads,
            value_heads=text.linear_num_value_heads,
            key_dim=text.linear_key_head_dim,
            value_dim=text.linear_value_head_dim,
            kernel=text.linear_conv_kernel_dim,
        )
    else:
        attention = _attention(text, None, output_gate=True)
    if not (experts := getattr(text, "num_experts", 0)):
        return LayerShape(attention, text.intermediate_size)
    mixture = ExpertsShape(
        experts, text.num_experts_per_tok, text.moe_intermediate_size, text.shared_expert_intermediate_size
    )
    return LayerShape(attention, 0, experts=mixture)


def _gemma4_layer(text: Any, index: int) -> LayerShape:
    sliding = text.layer_types[index] == "sliding_attention"
    own = text.per_layer_config[index]
    reused = text.kv_sharing_modes[index] == "reuse"
    attention = AttentionShape(
        heads=text.num_attention_heads,
        kv_heads=own.num_key_value_heads,
        head_dim=own.head_dim,
        window=text.sliding_window if sliding else None,
        own_keys=not reused,
        own_values=sliding or not text.attention_k_eq_v,
    )
    experts = (
        ExpertsShape(text.num_experts, text.top_k_experts, text.moe_intermediate_size)
        if text.enable_moe_block
        else None
    )
    return LayerShape(
        attention,
        text.intermediate_size * (2 if text.use_double_wide_mlp and reused else 1),
        experts=experts,
        extra_weights=2 * text.hidden_size * (text.hidden_size_per_layer_input or 0),
    )


def _per_layer_input_weights(text: Any) -> int:
    width = getattr(text, "hidden_size_per_layer_input", 0) or 0
    return int(text.hidden_size * text.num_hidden_layers * width)


# Vision towers ----------------------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _image_tower(
    vision: Any,
    projector: tuple[tuple[int, int], ...],
    *,
    class_tokens: int = 0,
    merge: int = 1,
    projector_input: Literal["merged", "patches", "all"] = "merged",
) -> VisionShape:
    """A tower of images of fixed size: CLIP, SigLIP, InternViT."""
    (height, width), (patch_height, patch_width) = _pair(vision.image_size), _pair(vision.patch_size)
    return VisionShape(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        head_dim=vision.hidden_size // vision.num_attention_heads,
        intermediate=vision.intermediate_size,
        patch_inputs=vision.num_channels * patch_height * patch_width,
        projector=projector,
        grid=(height // patch_height, width // patch_width),
        class_tokens=class_tokens,
        merge=merge,
        projector_input=projector_input,
        pooling_head=bool(getattr(vision, "vision_use_head", False)),
    )


def _two_layer_projector(config: Any, vision: Any, hidden: int, outputs: int) -> tuple[tuple[int, int], ...]:
    taps = config.vision_feature_layer
    return ((vision.hidden_size * (1 if isinstance(taps, int) else len(taps)), hidden), (hidden, outputs))


def _clip_or_siglip(config: Any, vision: Any) -> int:
    """Number of class tokens of a LLaVA tower."""
    if vision.model_type in ("clip_vision_model", "siglip_vision_model"):
        return int(vision.model_type == "clip_vision_model")
    raise ValueError(
        f"{type(config).__name__} with a vision tower of {type(vision).__name__} has a cost that is not known; "
        "known towers: clip_vision_model, siglip_vision_model"
    )


def _llava_onevision(config: Any, vision: Any, hidden: int) -> VisionShape:
    projector = _two_layer_projector(config, vision, hidden, hidden)
    tokens = _clip_or_siglip(config, vision)
    crop = config.vision_feature_select_strategy == "default"
    return _image_tower(vision, projector, class_tokens=tokens, projector_input="patches" if crop else "all")


def _llava_next_video(config: Any, vision: Any, hidden: int) -> VisionShape:
    projector = _two_layer_projector(config, vision, hidden, hidden)
    stride = config.spatial_pool_stride
    if config.spatial_pool_mode == "conv":
        pooled = getattr(config, "spatial_pool_out_channels", vision.hidden_size)
        projector = ((stride * stride * vision.hidden_size, pooled), *projector)
    return _image_tower(vision, projector, class_tokens=_clip_or_siglip(config, vision), merge=stride)


def _video_llava(config: Any, vision: Any, hidden: int) -> VisionShape:
    projector = _two_layer_projector(config, vision, hidden, hidden)
    return _image_tower(vision, projector, class_tokens=_clip_or_siglip(config, vision), projector_input="all")


def _internvl(config: Any, vision: Any, hidden: int) -> VisionShape:
    merge = int(1 / config.downsample_ratio)
    projector = ((vision.hidden_size * merge**2, hidden), (hidden, hidden))
    return _image_tower(vision, projector, class_tokens=1, merge=merge)


def _smolvlm(config: Any, vision: Any, hidden: int) -> VisionShape:
    merge = config.scale_factor
    return _image_tower(vision, ((vision.hidden_size * merge**2, hidden),), merge=merge)


def _video_llama_3(config: Any, vision: Any, hidden: int) -> VisionShape:
    height, width = _pair(vision.patch_size)
    return VisionShape(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        head_dim=vision.hidden_size // vision.num_attention_heads,
        intermediate=vision.intermediate_size,
        patch_inputs=vision.num_channels * height * width,
        projector=((vision.hidden_size, hidden), (hidden, hidden)),
        merge=2,  # the processor's setting for videos, not part of the config
    )


def _qwen_tower(vision: Any, width: int, intermediate: int, projector: tuple[tuple[int, int], ...]) -> VisionShape:
    """A tower of patches of several frames, any resolution, squares of patches merged behind it."""
    height_width = _pair(vision.patch_size)
    return VisionShape(
        layers=vision.depth,
        hidden=width,
        heads=vision.num_heads,
        head_dim=width // vision.num_heads,
        intermediate=intermediate,
        patch_inputs=vision.in_channels * vision.temporal_patch_size * height_width[0] * height_width[1],
        projector=projector,
        gated=vision.model_type in ("qwen2_5_vl_vision", "glm4v_vision"),
        frames_per_step=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        deepstack=len(getattr(vision, "deepstack_visual_indexes", ())),
        window=_window_in_patches(vision),
        full_layers=tuple(getattr(vision, "fullatt_block_indexes", ())),
    )


def _window_in_patches(vision: Any) -> int | None:
    if (pixels := getattr(vision, "window_size", None)) is None:
        return None
    merge = int(vision.spatial_merge_size)
    return int(pixels // merge // _pair(vision.patch_size)[0]) * merge


def _qwen2_vl(config: Any, vision: Any, hidden: int) -> VisionShape:
    width = vision.embed_dim
    square = width * vision.spatial_merge_size**2
    return _qwen_tower(vision, width, width * vision.mlp_ratio, ((square, square), (square, vision.hidden_size)))


def _qwen_vl(config: Any, vision: Any, hidden: int) -> VisionShape:
    square = vision.hidden_size * vision.spatial_merge_size**2
    projector = ((square, square), (square, vision.out_hidden_size))
    return _qwen_tower(vision, vision.hidden_size, vision.intermediate_size, projector)


def _glm4v(config: Any, vision: Any, hidden: int) -> VisionShape:
    out, inner = vision.out_hidden_size, vision.intermediate_size
    square = vision.hidden_size * vision.spatial_merge_size**2
    projector = ((square, out), (out, out), (out, inner), (out, inner), (inner, out))
    # The tower's own MLPs are as wide as its output; intermediate_size belongs to the merger.
    return _qwen_tower(vision, vision.hidden_size, out, projector)


def _gemma4(config: Any, vision: Any, hidden: int) -> VisionShape:
    return VisionShape(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        head_dim=vision.head_dim,
        intermediate=vision.intermediate_size,
        patch_inputs=3 * vision.patch_size**2,
        projector=((vision.hidden_size, hidden),),
        gated=True,
        merge=vision.pooling_kernel_size,
        pooling_matmul=True,
    )


_VISION: dict[str, Callable[[Any, Any, int], VisionShape]] = {
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "video_llava": _video_llava,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
    "qwen3_vl_moe": _qwen_vl,
    "qwen3_5": _qwen_vl,
    "qwen3_5_moe": _qwen_vl,
    "internvl": _internvl,
    "video_llama_3": _video_llama_3,
    "glm4v": _glm4v,
    "smolvlm": _smolvlm,
    "gemma4": _gemma4,
}

SUPPORTED_FAMILIES = tuple(_VISION)
"""Model types whose cost is known."""
