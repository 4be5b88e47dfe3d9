"""Everything private or changing that this package uses of transformers, in one place, each with its reason.

Public classes, ``generate()``, ``get_decoder()`` and ``register_forward_pre_hook`` are not listed.
``tests/test_transformers_names.py`` looks every name up in the installed transformers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

CACHE_NAMES = ("cache", "past_key_values")
"""What calls name their KV cache: the first since transformers 5.24, the second before."""

NAMES: dict[str, str] = {
    "modeling_utils.ALL_ATTENTION_FUNCTIONS": "observers of attention stand in this table while a session needs them",
    "masking_utils.create_causal_mask": "layers behind an inner stage need masks of their own length (layer_idx=)",
    "cache_utils.DynamicCache": "made where a decoder would make one, so that it can remember what was compressed",
    "cache_utils.DynamicLayer": "only caches made of these can be stacked into one batch of prefixes",
    "cache_utils.Cache.crop": "overridden, as the next four: what a compressed cache remembers changes with it",
    "cache_utils.Cache.reorder_cache": "beams",
    "cache_utils.Cache.batch_repeat_interleave": "shared prefixes",
    "cache_utils.Cache.batch_select_indices": "shared prefixes",
    "cache_utils.Cache.reset": "a cache that is used again",
    "cache_utils.Cache.get_seq_length": "without a layer it answers in tokens of the full prompt",
    "cache_utils.Cache.update": "refuses tokens that come outside a session, as the next two",
    "cache_utils.Cache.update_conv_state": "decoders with convolutions",
    "cache_utils.Cache.update_recurrent_state": "decoders with linear attention",
    "modeling_outputs.BaseModelOutputWithPooling": "what encoders of videos return; pooler_output: the features",
    "models.qwen2.modeling_qwen2.eager_attention_forward": "each model file has a function of this name",
}
"""By dotted path inside the package ``transformers``: why it is used."""


def attention_functions() -> Any:
    """transformers' table of attention functions."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS


def eager_attention(module: Any) -> Callable[..., Any]:
    """The eager attention function of a model's file."""
    function: Callable[..., Any] = module.eager_attention_forward
    return function


def cache_in(kwargs: Mapping[str, Any]) -> Any:
    """The KV cache that a decoder or a layer is called with, under either name, or None."""
    return next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)


def cache_argument(function: Callable[..., Any]) -> str:
    """What ``function`` (a forward, or transformers' own helper) calls the KV cache.

    Raises:
        TypeError: when it takes none.
    """
    return _argument(getattr(function, "__func__", function))  # a bound method is another object at each look


@functools.cache
def _argument(function: Callable[..., Any]) -> str:
    parameters = inspect.signature(function).parameters
    for name in CACHE_NAMES:
        if name in parameters:
            return name
    raise TypeError(f"{getattr(function, '__qualname__', function)} takes no KV cache: it has neither of {CACHE_NAMES}")
