"""A call's arguments by name."""

from __future__ import annotations

import inspect
from typing import Any


def bound_arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    if not args:
        return kwargs
    try:
        bound = inspect.signature(function).bind_partial(*args, **kwargs)
    except TypeError:  # the call itself will say what is wrong with it
        return dict(kwargs)
    named = dict(bound.arguments)
    named.update(named.pop("kwargs", {}))
    return named
