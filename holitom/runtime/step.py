"""A decode step: one more token in each row, behind compressed prompts.

Its places and masks follow from what the cache remembers and how many tokens it holds. A step changes neither, asks for
no thread and reads nothing back from a device, so that ``torch.compile`` takes the model with it as one graph, and adds
a handful of operations where nothing is compiled, at any depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from holitom.models.base import kinds_of_layers
from holitom.models.transformers_names import cache_in
from holitom.runtime.cache import CacheMemory, Stage, memory_of
from holitom.runtime.layers import causal_mask, reads_packed
from holitom.runtime.lengths import counting_layer
from holitom.runtime.mass import weighed_mask

_TOKENS = ("input_ids", "inputs_embeds", "hidden_states")


@dataclass(eq=False)
class Step:
    """The step at work.

    Args:
        decoder: its module.
        positions: (B or 1, 1) or (3 or 4, B, 1) position ids of the new tokens.
        replaced: arguments of the coming layers that an inner stage has changed.
    """

    decoder: Any
    positions: Tensor
    replaced: dict[str, Any] = field(default_factory=dict)


def is_step(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call (of a model, its decoder or a layer of that) brings one token a row and completes no prefix."""
    given = next((kwargs[name] for name in _TOKENS if kwargs.get(name) is not None), args[0] if args else None)
    if not isinstance(given, Tensor) or given.shape[1] != 1:
        return False
    memory = memory_of(cache_in(kwargs))
    return memory is None or memory.unfinished is None


def begin_step(memory: CacheMemory, decoder: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the decoder is called with instead of ``kwargs``."""
    embeds, cache, stage = kwargs["inputs_embeds"], cache_in(kwargs), memory.stages[0]
    length = counting_layer(cache, 0).get_seq_length()
    count = _count(stage, length, embeds.device)
    positions = memory.numbered(count, memory.following(count, kwargs.get("position_ids")))
    memory.step, memory.open = Step(decoder, positions), True
    mask = _mask(stage, length, cache, decoder, embeds)
    return {**kwargs, "attention_mask": mask, "position_ids": positions}


def step_layer(
    memory: CacheMemory, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """What a decoder layer is called with instead; None leaves the call as it is."""
    step = memory.step
    assert step is not None
    for stage in memory.stages[1:]:
        if stage.layer == layer:
            _begin_stage(step, memory, stage, args[0] if args else kwargs["hidden_states"], cache_in(kwargs))
    if not step.replaced:
        return None
    return args, {**kwargs, **{name: value for name, value in step.replaced.items() if name in kwargs}}


def _begin_stage(step: Step, memory: CacheMemory, stage: Stage, hidden: Tensor, cache: Any) -> None:
    renumbered = memory.method.compacts and step.positions.dim() == 2
    if not (stage.shortened or renumbered):
        return  # the masks and positions in force are still true
    length = counting_layer(cache, stage.layer).get_seq_length()
    if renumbered:
        count = _count(stage, length, hidden.device)
        step.replaced["position_ids"] = count
        step.replaced["position_embeddings"] = step.decoder.rotary_emb(hidden, count)
    step.replaced["attention_mask"] = _mask(stage, length, cache, step.decoder, hidden)


def _count(stage: Stage, length: int | Tensor, device: torch.device) -> Tensor:
    """(B or 1, 1) int64: how many real tokens of a stage stand before the new one."""
    if stage.padding is not None:
        return length - stage.padding.to(device)
    if isinstance(length, Tensor):
        return length.to(device).view(1, 1).clone()  # the cache counts on in place
    return torch.full((1, 1), length, dtype=torch.int64, device=device)


def _mask(stage: Stage, length: int | Tensor, cache: Any, decoder: Any, hidden: Tensor) -> Any:
    """What the layers of a stage see, as their attention takes it; None: all that is cached."""
    static, kind = isinstance(length, Tensor), decoder.config._attn_implementation
    known = stage.mask if static else stage.first(int(length) + 1)
    if known is not None:
        known = known.to(hidden.device)
    if kinds_of_layers(decoder.config) != {"full_attention"}:
        return known  # the decoder makes several masks of it
    if static and (kind == "sdpa" or reads_packed(decoder)):
        seen = torch.arange(cache.layers[stage.layer].max_cache_len, device=hidden.device) <= length
        known = seen[None] if known is None else known & seen
    if stage.mass is not None:  # refused with static caches
        return weighed_mask(None if known is None else known[:, None, None], stage.mass, int(length) + 1, hidden)
    if known is None and not static:
        return None
    if known is not None and kind == "sdpa":
        return known[:, None, None]
    if known is not None and reads_packed(decoder):
        return known.expand(hidden.shape[0], -1)
    return causal_mask(decoder, stage.layer, cache, hidden, known)
