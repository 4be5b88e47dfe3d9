"""The values of settings: whether each is of its field's type, as the field's annotation says."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np


@cache
def kinds_of(cls: Any) -> Mapping[str, Any]:
    """The types of a dataclass's fields that can be set, by name."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # an annotation of another package that only its type checker can read
        hints = {}
    return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(cls) if field.init}


def normalise(settings: Any) -> None:
    """Checks every field of a frozen dataclass; NumPy's numbers become Python's, and lists become tuples.

    Raises:
        TypeError: naming the field, its type and the value.
        ValueError: for a word that is none of the choices, naming these.
    """
    cls: Any = type(settings)
    name = cls.__name__
    for key, kind in kinds_of(cls).items():
        given = getattr(settings, key)
        value = _plain(given, kind)
        if not _fits(value, kind):
            if hasattr(value, "forward") or hasattr(value, "config"):
                raise TypeError(
                    f"{name}(...) takes settings, and the model in a second call: {name}()(model), or with settings "
                    f"{name}({key}=...)(model)"
                )
            wrong_word = typing.get_origin(kind) is Literal and isinstance(value, str)
            error = ValueError if wrong_word else TypeError
            raise error(f"{name}'s {key} must be {_describe(kind)}, got {given!r}")
        if value is not given:
            object.__setattr__(settings, key, value)


def _plain(value: Any, kind: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple) and any(typing.get_origin(k) is tuple for k in (kind, *typing.get_args(kind))):
        return tuple(_plain(part, None) for part in value)
    return value


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; an int is a float too, a bool is neither. Unknown types take anything."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is tuple:
        inner = arguments[0] if arguments else Any
        return isinstance(value, tuple) and all(_fits(part, inner) for part in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) if isinstance(kind, type) and kind is not Any else True


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return f"a tuple of ({_describe(arguments[0])})"
    words = {float: "a number", int: "an integer", bool: "true or false", str: "a word", type(None): "none"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))
