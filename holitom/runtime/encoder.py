"""Watching a model encode its videos: how they will lie in the prompt, and which patches its vision tower looks at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holitom.models.base import PatchRecord, VideoLayout
from holitom.runtime.taps import attention_of_first, attention_received, observe, release
from holitom.runtime.wrap import Wrapped, bound_arguments

if TYPE_CHECKING:
    from holitom.runtime.session import Session

_MARK = "_holitom_layouts"


def watch_encoder(base: Any, name: str, session: Callable[[], Session | None]) -> Wrapped:
    """Wraps this one instance's method that encodes videos for whatever session is in force when it is called.

    ``generate()`` encodes before the model's forward and reads the signature of what it calls, which the wrapper keeps.
    """
    encode = getattr(base, name)

    @functools.wraps(encode)
    def encoding(*args: Any, **kwargs: Any) -> Any:
        current = session()
        return encode(*args, **kwargs) if current is None else _encode(current, encode, args, kwargs)

    return Wrapped(base, name, encoding)


def layouts_of(encoded: Any) -> list[VideoLayout]:
    """The layouts that were written down with an encoder output."""
    return getattr(encoded, _MARK, [])


def with_layouts(encoded: Any, layouts: list[VideoLayout]) -> Any:
    """An encoder output with the layouts of its videos written down, for videos that were encoded in another way."""
    object.__setattr__(encoded, _MARK, layouts)
    return encoded


def _encode(session: Session, encode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    arguments = bound_arguments(encode, args, kwargs)
    real = session.adapter.patch_mask(arguments)
    needs, received, keys = session.method.needs, list[Tensor](), list[Tensor]()

    def observer(query: Tensor, key: Tensor, scale: float) -> None:
        if "scores" in needs:
            if session.adapter.class_token:
                received.append(attention_of_first(query, key, scale))
            else:
                received.append(attention_received(query, key, scale, real))
        if "keys" in needs:
            keys.append(key.float().mean(1))

    owner = object()
    tower = session.adapter.vision_attention(arguments)
    if tower is not None and needs & {"scores", "keys"}:
        observe(tower, owner, observer)
    try:
        with session.stage("vision tower"):
            output = encode(*args, **kwargs)
    finally:
        release(owner)
    patches = PatchRecord(_join(received), _join(keys))
    session.layouts = session.adapter.layouts(output, arguments, patches)
    if hasattr(output, "__dict__"):  # generate() hands this object back to forward(), perhaps much later
        with_layouts(output, session.layouts)
    return output


def _join(chunks: list[Tensor]) -> Tensor | None:
    """Frames of one size as (F, P, ...), others one after the other as (1, total, ...)."""
    if not chunks:
        return None
    if len({chunk.shape[1] for chunk in chunks}) == 1:
        return torch.cat(chunks)
    return torch.cat([chunk.flatten(0, 1) for chunk in chunks])[None]
