"""The KV cache among a call's arguments: ``cache`` since transformers 5.24, ``past_key_values`` before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

NAMES = ("cache", "past_key_values")


def cache_in(kwargs: Mapping[str, Any]) -> Any:
    """The KV cache that a decoder or a layer is called with, under either name, or None."""
    return next((kwargs[name] for name in NAMES if kwargs.get(name) is not None), None)


def cache_argument(function: Callable[..., Any]) -> str:
    """What ``function`` (a forward, or transformers' own helper) calls the KV cache.

    Raises:
        TypeError: when it takes none.
    """
    return _argument(getattr(function, "__func__", function))  # a bound method is another object at each look


@functools.cache
def _argument(function: Callable[..., Any]) -> str:
    parameters = inspect.signature(function).parameters
    for name in NAMES:
        if name in parameters:
            return name
    raise TypeError(f"{getattr(function, '__qualname__', function)} takes no KV cache: it has neither of {NAMES}")
