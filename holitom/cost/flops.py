"""FLOPs of a forward pass: every matrix product and convolution, two operations per multiply-add.

Counted: projections, attention products, MLPs, routers, the output head, patch embedding, projector. Not counted, as in
``torch.utils.flop_counter``: norms, activations, softmax, rotary embeddings, residual sums, pooling by averages and
interpolation, table look-ups. Counts are for one sample without padding; add samples up with ``+``.

Everywhere in holitom attention is counted causally: only the pairs of queries and keys that the causal mask and a
sliding window let through. That is what a prompt needs, what sdpa and flash kernels compute up to the border of their
blocks, and what stays the same when a prompt is read in parts. ``causal=False`` counts the whole rectangle, masked
pairs included, as eager attention computes it and ``torch.utils.flop_counter`` reports it for every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from .shape import AttentionShape, DeltaNetShape, LayerShape, ModelShape, ShortConvShape, check_int


@dataclass(frozen=True)
class Flops:
    """FLOPs by part of the model; parts of two counts add up with ``+``.

    Attributes:
        projections: query, key, value and output projections.
        attention: products of queries and keys, of weights and values; the delta rule; convolutions over tokens.
        mlp: MLPs, experts, routers and other linear maps inside the layers.
        head: the output head over the vocabulary.
        embedding: the patch embedding of the vision tower.
        projector: from the vision tower to the language model.
    """

    projections: int = 0
    attention: int = 0
    mlp: int = 0
    head: int = 0
    embedding: int = 0
    projector: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: Flops) -> Flops:
        if not isinstance(other, Flops):
            return NotImplemented
        return Flops(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """The parts and their total, ready for JSON."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "total": self.total}


def prefill_flops(
    shape: ModelShape,
    tokens_per_layer: Sequence[int],
    *,
    logits: int | Literal["all"] = 1,
    causal: bool = True,
    past_per_layer: Sequence[int] | None = None,
) -> Flops:
    """FLOPs of the language model reading one prompt.

    Args:
        shape: the model.
        tokens_per_layer: prompt tokens (text and visual) that each decoder layer processes.
        logits: positions that the output head sees: 1 in ``generate()``, "all" in a plain ``forward()``.
        causal: count only the pairs that the mask lets through; False: the whole rectangle of queries and keys.
        past_per_layer: tokens already in each layer's cache, for a further turn; None for an empty cache.

    Returns:
        The count by part. Compression itself is not in it: measure that in seconds.
    """
    tokens = check_per_layer(shape, tokens_per_layer, "tokens_per_layer", minimum=1)
    past = check_per_layer(shape, past_per_layer, "past_per_layer", minimum=0) if past_per_layer else (0,) * shape.depth
    head_positions = tokens[-1] if logits == "all" else logits
    if isinstance(head_positions, bool) or not isinstance(head_positions, int):
        raise TypeError(f"logits must be an int or 'all', got {logits!r}")
    if not 0 <= head_positions <= tokens[-1]:
        raise ValueError(f"logits must be in 0..{tokens[-1]} (the last layer's tokens) or 'all', got {logits}")
    total = Flops(mlp=2 * tokens[0] * shape.input_weights, head=2 * head_positions * shape.hidden * shape.vocab)
    for layer, n, p in zip(shape.layers, tokens, past, strict=True):
        total += _layer_flops(layer, shape.hidden, n, p, causal)
    return total


def decode_flops(shape: ModelShape, kv_per_layer: Sequence[int], *, steps: int = 1) -> Flops:
    """FLOPs of generating tokens one by one behind a cache.

    Args:
        shape: the model.
        kv_per_layer: tokens in each layer's cache before the first step. A new token attends to them and to itself.
        steps: number of generated tokens; the cache grows by one with each.

    Returns:
        The count by part, output head included, for all steps together.
    """
    check_int("steps", steps)
    cached = check_per_layer(shape, kv_per_layer, "kv_per_layer", minimum=0)
    total = Flops(mlp=2 * steps * shape.input_weights, head=2 * steps * shape.hidden * shape.vocab)
    for layer, past in zip(shape.layers, cached, strict=True):
        attention = layer.attention
        if isinstance(attention, AttentionShape):
            mixing = _attention_flops(attention, _causal_pairs(steps, past, attention.window))
        elif isinstance(attention, ShortConvShape):
            mixing = _conv_flops(attention, steps)
        else:
            mixing = steps * _delta_step_flops(attention)
        total += Flops(_projection_flops(layer, shape.hidden, steps), mixing, _mlp_flops(layer, shape.hidden, steps))
    return total


def check_per_layer(shape: ModelShape, counts: Sequence[int], name: str, *, minimum: int) -> tuple[int, ...]:
    """One int per decoder layer, as a tuple; errors name the argument."""
    checked = tuple(counts)
    if len(checked) != shape.depth:
        raise ValueError(f"{name} needs one count for each of the {shape.depth} decoder layers, got {len(checked)}")
    for layer, n in enumerate(checked):
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"{name} must hold ints, got {n!r} for layer {layer}")
        if n < minimum:
            raise ValueError(f"{name} must hold counts of at least {minimum}, got {n} for layer {layer}")
    return checked


def _layer_flops(layer: LayerShape, hidden: int, n: int, past: int, causal: bool) -> Flops:
    attention = layer.attention
    if isinstance(attention, DeltaNetShape):
        mixing = _delta_step_flops(attention) if past and n == 1 else _delta_chunk_flops(attention, n)
    elif isinstance(attention, ShortConvShape):
        mixing = _conv_flops(attention, n)
    elif causal:
        mixing = _attention_flops(attention, _causal_pairs(n, past, attention.window))
    else:
        kept = past if attention.window is None else min(past, attention.window - 1)
        mixing = _attention_flops(attention, n * (n + kept))
    return Flops(_projection_flops(layer, hidden, n), mixing, _mlp_flops(layer, hidden, n))


def _projection_flops(layer: LayerShape, hidden: int, n: int) -> int:
    attention = layer.attention
    if isinstance(attention, DeltaNetShape):
        values = attention.value_heads * attention.value_dim
        # In: queries, keys, values, output gate, and two scalars per head (decay, learning rate). Out: values.
        return 2 * n * hidden * (attention.channels + values + 2 * attention.value_heads + values)
    if isinstance(attention, ShortConvShape):
        return 2 * n * hidden * 4 * attention.channels  # in: two gates and the values; out
    queries = attention.heads * attention.head_dim
    keys = attention.kv_heads * attention.head_dim
    wide = queries * (3 if attention.output_gate else 2)  # in and out, and the gate
    wide += keys * (attention.own_keys + (attention.own_keys and attention.own_values))
    return 2 * n * hidden * wide


def _attention_flops(attention: AttentionShape, pairs: int) -> int:
    # Every query head works with keys of its group: grouping saves memory, not products.
    return 2 * 2 * pairs * attention.heads * attention.head_dim


def _causal_pairs(n: int, past: int, window: int | None) -> int:
    """Sum over the n new tokens of the keys that each sees, itself included."""
    if window is None:
        return n * past + n * (n + 1) // 2
    growing = min(n, max(0, window - past))
    return growing * past + growing * (growing + 1) // 2 + (n - growing) * window


def _conv_flops(conv: ShortConvShape, n: int) -> int:
    return 2 * n * conv.channels * conv.kernel


def _delta_step_flops(delta: DeltaNetShape) -> int:
    # Per value head: read the state at the key, write the correction, read it at the query.
    state = 3 * 2 * delta.key_dim * delta.value_dim
    return delta.value_heads * state + 2 * delta.channels * delta.kernel


def _delta_chunk_flops(delta: DeltaNetShape, n: int) -> int:
    c, keys, values = delta.chunk, delta.key_dim, delta.value_dim
    products = 2 * 2 * c * c * keys + 2 * c * c * values + 3 * 2 * c * keys * values
    solve = c * (c - 1) * (keys + values)  # triangular system, unit diagonal
    chunks = -(-n // c)
    return delta.value_heads * chunks * (products + solve) + 2 * n * delta.channels * delta.kernel


def _mlp_flops(layer: LayerShape, hidden: int, n: int) -> int:
    matrices = 3 if layer.gated else 2
    weights = matrices * hidden * layer.intermediate + layer.extra_weights
    if experts := layer.experts:
        weights += hidden * experts.count + 3 * hidden * experts.per_token * experts.intermediate
        if experts.shared_intermediate:
            weights += 3 * hidden * experts.shared_intermediate + (hidden if experts.shared_gate else 0)
    return 2 * n * weights
