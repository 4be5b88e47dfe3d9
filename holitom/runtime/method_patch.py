"""A model's methods: others in their place, functions that torch.compile leaves alone, and arguments by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch


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


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """In a compiled model it runs as it is."""
    wrapped: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return wrapped


class MethodPatch:
    """Stands in one instance's ``__dict__`` in front of a method, until :meth:`remove`."""

    def __init__(self, owner: Any, name: str, run: Callable[..., Any]) -> None:
        self.owner, self.name, self.before, self.method = owner, name, owner.__dict__.get(name), getattr(owner, name)
        self.run = untraced(run)
        functools.update_wrapper(self, self.method)  # generate() reads the signature of what it calls
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs in place of the method."""
        return self.run(self.method, args, kwargs)

    def remove(self) -> None:
        """Restores what was there."""
        delattr(self.owner, self.name)
        if self.before is not None:
            setattr(self.owner, self.name, self.before)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError(
            "a model cannot be copied or pickled while a session is attached to it, because the copy would compress as "
            "well, under the session of the original: leave the session first (save_pretrained() works inside it)"
        )
