"""Bytes of the KV cache (exact) and of the activations at their peak (a model of what lives at once)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from .flops import check_per_layer
from .shape import AttentionShape, DeltaNetShape, LayerShape, ModelShape, ShortConvShape

_FLOAT32 = 4


def kv_cache_bytes(shape: ModelShape, tokens_per_layer: Sequence[int], dtype: torch.dtype | int = 2) -> int:
    """Bytes of keys and values behind ``tokens_per_layer`` tokens of one sample.

    Sliding layers keep their window less one, as transformers' dynamic cache does; layers that use another's keys keep
    nothing; linear attention keeps its state (float32), a convolution its last inputs, however long the prompt.

    Args:
        shape: the model.
        tokens_per_layer: tokens in each layer's cache.
        dtype: of the cache, or the bytes of one element.
    """
    tokens = check_per_layer(shape, tokens_per_layer, "tokens_per_layer", minimum=0)
    size = element_size(dtype)
    return sum(_layer_cache(layer, n, size) for layer, n in zip(shape.layers, tokens, strict=True))


def activation_peak_bytes(
    shape: ModelShape,
    tokens_per_layer: Sequence[int],
    dtype: torch.dtype | int = 2,
    *,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> int:
    """Bytes of activations at the peak of the language model's prefill, without weights and KV cache.

    A model, not a count: the largest of these over the layers, in elements per token for hidden size d, queries q wide,
    keys k wide, MLP m wide (m summed over the experts of a token):

    * attention: 2 d (residual, norm) + 4 q + 2 k (projections, rotary products or repeated keys and values);
      eager attention adds the scores, 8 bytes per head and pair (softmax in float32), and the mask;
    * MLP: 3 d + 3 m with a gate, 3 d + 2 m without; eager layers still hold their weights and the mask;
    * head: the logits of one position, as in ``generate()``.

    To each come the input embeddings and the rotary table. The tests compare it with the bytes of all live tensors: 2 %
    off with sdpa, 10 % with eager in float32 (in bfloat16 the CPU's softmax keeps a copy more). Allocators round up,
    keep a reserve, and kernels need workspace, so what a driver reports is somewhat larger.

    Args:
        shape: the model.
        tokens_per_layer: tokens that each decoder layer processes.
        dtype: of the activations, or the bytes of one element.
        attention: "eager" keeps the scores of all pairs; everything else does not.

    Raises:
        ValueError: for layers of linear attention, whose memory depends on the kernel.
    """
    tokens = check_per_layer(shape, tokens_per_layer, "tokens_per_layer", minimum=1)
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"attention must be 'sdpa' (also for flash) or 'eager', got {attention!r}")
    size = element_size(dtype)
    peak = shape.vocab * size
    for layer, n in zip(shape.layers, tokens, strict=True):
        peak = max(peak, _mixing_peak(layer, shape.hidden, n, size, attention))
        peak = max(peak, _mlp_peak(layer, shape.hidden, n, size, attention))
    heads = [layer.attention.head_dim for layer in shape.layers if isinstance(layer.attention, AttentionShape)]
    return peak + tokens[0] * (shape.hidden + 2 * max(heads, default=0)) * size


def element_size(dtype: torch.dtype | int) -> int:
    """Bytes of one element; an int passes through."""
    if isinstance(dtype, torch.dtype):
        return dtype.itemsize
    if isinstance(dtype, bool) or not isinstance(dtype, int):
        raise TypeError(f"dtype must be a torch.dtype or the bytes of one element, got {dtype!r}")
    if dtype < 1:
        raise ValueError(f"dtype given in bytes must be at least 1, got {dtype}")
    return dtype


def _layer_cache(layer: LayerShape, n: int, size: int) -> int:
    attention = layer.attention
    if isinstance(attention, DeltaNetShape):
        state = attention.value_heads * attention.key_dim * attention.value_dim * _FLOAT32
        return state + attention.channels * attention.kernel * size
    if isinstance(attention, ShortConvShape):
        return attention.channels * attention.kernel * size
    if not attention.own_keys:
        return 0
    kept = n if attention.window is None else min(n, attention.window - 1)
    return 2 * kept * attention.kv_heads * attention.head_dim * size


def _mixing_peak(layer: LayerShape, hidden: int, n: int, size: int, backend: str) -> int:
    attention = layer.attention
    if not isinstance(attention, AttentionShape):
        raise ValueError(
            "the activation peak of linear attention and of convolutions depends on the kernel and is not known: "
            "measure it"
        )
    queries, keys = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    peak = n * (2 * hidden + (6 if attention.output_gate else 4) * queries + 2 * keys) * size
    if backend == "eager":
        peak += n * n * (2 * _FLOAT32 * attention.heads + size)
    return peak


def _mlp_peak(layer: LayerShape, hidden: int, n: int, size: int, backend: str) -> int:
    copies = layer.experts.per_token * hidden if layer.experts else 0  # a token's state, once for each of its experts
    peak = n * (3 * hidden + copies + (3 if layer.gated else 2) * layer.active_intermediate) * size
    if backend == "eager" and isinstance(layer.attention, AttentionShape):
        peak += n * n * (layer.attention.heads + 1) * size  # eager layers hold their weights (and mask) to the end
    return peak
