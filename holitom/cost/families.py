"""From a transformers config to a :class:`~holitom.cost.shape.ModelShape`, family by family.

Only attributes of the config are read; no model is built and transformers is not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .shape import AttentionShape, DeltaNetShape, ExpertsShape, LayerShape, ModelShape, ShortConvShape
from .towers import TOWERS

# Decoders of plain layers: grouped-query softmax attention and a gated MLP or experts.
_PLAIN_DECODERS = {
    *("llama", "mistral", "qwen2", "qwen3", "qwen3_moe"),
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_text"),
    *("qwen2_5_omni_text", "qwen3_omni_moe_text"),
}


def model_shape(config: Any) -> ModelShape:
    """The shape of a video language model; the public door is :meth:`ModelShape.from_config`."""
    config = getattr(config, "thinker_config", config)  # of Qwen-Omni, the part that sees videos
    family = getattr(config, "model_type", None)
    builder = TOWERS.get(family) if isinstance(family, str) else None
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
    layer = _plain_layer if text.model_type in _PLAIN_DECODERS else _OTHER_DECODERS.get(text.model_type)
    if layer is None:
        raise ValueError(
            f"{type(config).__name__} with a decoder of {type(text).__name__} (model type {text.model_type!r}) has a "
            f"cost that is not known; known decoders: {', '.join(sorted({*_PLAIN_DECODERS, *_OTHER_DECODERS}))}"
        )
    return tuple(layer(text, index) for index in range(text.num_hidden_layers))


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


def _glm4v_moe_layer(text: Any, index: int) -> LayerShape:
    attention = _attention(text, None)
    if index < text.first_k_dense_replace:
        return LayerShape(attention, text.intermediate_size)
    width = text.moe_intermediate_size
    experts = ExpertsShape(
        text.n_routed_experts, text.num_experts_per_tok, width, width * text.n_shared_experts, shared_gate=False
    )
    return LayerShape(attention, 0, experts=experts)


def _lfm3_layer(text: Any, index: int) -> LayerShape:
    kind = text.layer_types[index]
    if kind == "conv":
        return LayerShape(ShortConvShape(text.hidden_size, text.conv_L_cache), text.intermediate_size)
    attention = _attention(text, text.sliding_window if kind == "sliding_attention" else None)
    gates = text.hidden_size * text.num_attention_heads if text.use_attention_gate else 0
    return LayerShape(attention, text.intermediate_size, extra_weights=gates)


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


_OTHER_DECODERS: dict[str, Callable[[Any, int], LayerShape]] = {
    "qwen3_5_text": _qwen3_5_layer,
    "qwen3_5_moe_text": _qwen3_5_layer,
    "glm4v_moe_text": _glm4v_moe_layer,
    "gemma4_text": _gemma4_layer,
    "lfm3": _lfm3_layer,
}

SUPPORTED_FAMILIES = tuple(TOWERS)
"""Model types whose cost is known."""
