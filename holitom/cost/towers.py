"""From a transformers config to the shape of its vision tower and projector, family by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .shape import VisionShape


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _tower(vision: Any, projector: tuple[tuple[int, int], ...], patch_inputs: int, **more: Any) -> VisionShape:
    """A tower whose config has the usual names."""
    return VisionShape(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        head_dim=getattr(vision, "head_dim", None) or vision.hidden_size // vision.num_attention_heads,
        intermediate=vision.intermediate_size,
        patch_inputs=patch_inputs,
        projector=projector,
        **more,
    )


def _image_tower(vision: Any, projector: tuple[tuple[int, int], ...], **more: Any) -> VisionShape:
    """A tower of images of fixed size: CLIP, SigLIP, InternViT."""
    (height, width), (patch_height, patch_width) = _pair(vision.image_size), _pair(vision.patch_size)
    grid, head = (height // patch_height, width // patch_width), bool(getattr(vision, "vision_use_head", False))
    inputs = vision.num_channels * patch_height * patch_width
    return _tower(vision, projector, inputs, grid=grid, pooling_head=head, **more)


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
    projector = ((vision.hidden_size, hidden), (hidden, hidden))
    merge = 2  # the processor's setting for videos, not part of the config
    return _tower(vision, projector, vision.num_channels * height * width, merge=merge)


_GATED = ("qwen2_5_vl_vision", "qwen2_5_omni_vision_encoder", "glm4v_vision", "glm4v_moe_vision")


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
        gated=vision.model_type in _GATED,
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
    more = {"gated": True, "merge": vision.pooling_kernel_size, "pooling_matmul": True}
    return _tower(vision, ((vision.hidden_size, hidden),), 3 * vision.patch_size**2, **more)


def _lfm3_vl(config: Any, vision: Any, hidden: int) -> VisionShape:
    (height, width), frames = _pair(vision.patch_size), _pair(vision.temporal_patch_size)[0]
    square = vision.hidden_size * vision.spatial_merge_size**2
    return _tower(
        vision,
        ((square, config.projector_hidden_size), (config.projector_hidden_size, hidden)),
        vision.in_channels * frames * height * width,
        kv_heads=vision.num_key_value_heads,
        gated=True,
        frames_per_step=frames,
        merge=vision.spatial_merge_size,
        conv_layers=list(vision.layer_types).count("conv"),
        conv_kernel=vision.conv_kernel_size,
    )


TOWERS: dict[str, Callable[[Any, Any, int], VisionShape]] = {
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "video_llava": _video_llava,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
    "qwen3_vl_moe": _qwen_vl,
    "qwen3_5": _qwen_vl,
    "qwen3_5_moe": _qwen_vl,
    "qwen2_5_omni_thinker": _qwen_vl,
    "qwen3_omni_moe_thinker": _qwen_vl,
    "internvl": _internvl,
    "video_llama_3": _video_llama_3,
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v,
    "glm46v": _glm4v,
    "smolvlm": _smolvlm,
    "gemma4": _gemma4,
    "lfm3_vl": _lfm3_vl,
}
