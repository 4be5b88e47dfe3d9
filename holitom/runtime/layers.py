"""In front of each decoder layer from the first inner stage on: merges there, or passes on what is shorter now."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from holitom.models.transformers_names import cache_argument
from holitom.runtime.cache import Stage, Unfinished
from holitom.runtime.call import Call
from holitom.runtime.lengths import fixed_length


class PrefixRead(Exception):
    """Ends the pass of a prefix in front of the first inner stage."""


def reads_packed(decoder: Any) -> bool:
    """Whether the attention layers of a decoder take gaps in position ids for the borders of packed sequences."""
    return "flash" in str(decoder.config._attn_implementation)


def known_tokens(call: Call, stage: Stage, device: torch.device) -> Tensor | None:
    """(B, L) bool: which tokens of a stage are real; None where attention needs no word of it."""
    real = stage.first(stage.length)
    if real is None and reads_packed(call.decoder) and fixed_length(call.cache, stage.layer, call.depth) is not None:
        # flash attention takes the length of keys from it
        real = torch.ones(call.rows, stage.length, dtype=torch.bool, device="cpu")
    return None if real is None else real.to(device)


class _StopForward(Exception):
    """Ends a look ahead once queries and keys are known."""


def enter_layer(
    call: Call, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """What a decoder layer is called with instead; None leaves the call as it is."""
    if layer in call.session.layers:
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden = _inner_stage(call, layer, module, hidden, kwargs)
        args, kwargs = ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
    elif not call.replaced and not call.session.method.mass:
        return None
    changed = {name: value for name, value in call.replaced.items() if name in kwargs}
    if call.session.method.mass:
        hidden = args[0] if args else kwargs["hidden_states"]
        changed["attention_mask"] = call.weigh(layer, changed.get("attention_mask", kwargs["attention_mask"]), hidden)
    return args, {**kwargs, **changed}


def _inner_stage(call: Call, layer: int, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    session = call.session
    embeddings = call.replaced.get("position_embeddings", kwargs["position_embeddings"])
    mask = call.replaced.get("attention_mask", kwargs.get("attention_mask"))
    rejoined = call.unfinished is not None
    if call.merging:
        if call.reads_prefix:
            _keep_prefix(call, hidden, embeddings)
        if rejoined:
            hidden, embeddings = call.rejoin(hidden, embeddings)
        with session.stage("compression"):
            if session.method.attention == "coming":
                _look_ahead(call, layer, module, hidden, embeddings)
            hidden, embeddings = call.merge_inside(layer, hidden, embeddings)
    stage = call.enter(layer)
    renumbered = session.method.compacts and call.positions is not None and call.positions.dim() == 2
    if not (stage.shortened or rejoined or renumbered):
        return hidden  # the masks and positions in force are still true
    flat = call.positions is None or call.positions.dim() == 2
    count = call.places(stage, hidden.device) if renumbered or flat else None
    if renumbered:
        embeddings = call.decoder.rotary_emb(hidden, count)
    if mask is not None or stage.mask is not None or call.width != stage.length:
        mask = causal_mask(call.decoder, layer, call.cache, hidden, known_tokens(call, stage, hidden.device))
    call.replaced = {"attention_mask": mask, "position_embeddings": embeddings}
    if flat:
        # flash attention takes gaps in position ids for the borders of packed sequences; the rotary embeddings above
        # already hold the true positions, so later layers are shown contiguous ids
        if count is not None:
            call.replaced["position_ids"] = count
    else:
        call.replaced["position_ids"] = call.positions
    return hidden


def causal_mask(decoder: Any, layer: int, cache: Any, hidden: Tensor, known: Tensor | None) -> Any:
    """The mask of layers that work on (B, Q, D) behind what their cache holds, as their attention takes it.

    Args:
        decoder: its module.
        layer: the first of the layers.
        cache: the KV cache, or None.
        hidden: (B, Q, D).
        known: (B, L) bool, which tokens are real; None: all.
    """
    from transformers.masking_utils import create_causal_mask

    return create_causal_mask(
        config=decoder.config,
        inputs_embeds=hidden,
        attention_mask=known,
        position_ids=None,
        layer_idx=layer,
        **{cache_argument(create_causal_mask): cache},
    )


def _keep_prefix(call: Call, hidden: Tensor, embeddings: Any) -> None:
    """Keeps what would have entered the inner stage, and ends the pass."""
    assert call.memory is not None
    seen = call.attention.get(0, hidden.new_zeros(hidden.shape[1]).float())
    call.memory.unfinished = Unfinished(hidden, tuple(embeddings), call.positions, call.new, call.spans, call.prompts)
    call.memory.unfinished.seen = [seen]
    call.memory.unfinished.mass = call.mass
    raise PrefixRead


def _look_ahead(call: Call, layer: int, module: Any, hidden: Tensor, embeddings: Any) -> None:
    """Runs the coming layer's attention just far enough to see its queries and keys."""

    def observer(query: Tensor, key: Tensor, scale: float) -> None:
        call.observe(layer - 1, query, key, scale)
        raise _StopForward

    call.observers[module.self_attn] = observer
    try:
        with contextlib.suppress(_StopForward):
            module.self_attn(
                hidden_states=module.input_layernorm(hidden),
                position_embeddings=embeddings,
                attention_mask=None,
                **{cache_argument(module.self_attn.forward): None},
            )
    finally:
        del call.observers[module.self_attn]
