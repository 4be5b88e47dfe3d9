"""Observing one instance's methods, without touching its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Wrapped:
    """A method of one instance replaced by a wrapper, until :meth:`remove`."""

    def __init__(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        self.owner, self.name, self.before = owner, name, owner.__dict__.get(name)
        setattr(owner, name, wrapper)

    def remove(self) -> None:
        """Restores what was there."""
        delattr(self.owner, self.name)
        if self.before is not None:
            setattr(self.owner, self.name, self.before)


def bound_arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    try:
        bound = inspect.signature(function).bind_partial(*args, **kwargs)
    except TypeError:  # the call itself will say what is wrong with it
        return dict(kwargs)
    named = dict(bound.arguments)
    named.update(named.pop("kwargs", {}))
    return named
