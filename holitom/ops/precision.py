"""Choices are made in the precision of what they look at, whatever surrounds the call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from holitom.merge import Merge
from holitom.tokens import VideoTokens


@contextmanager
def as_given(device: torch.device) -> Iterator[None]:
    """Without gradients, and without autocast: products of float32 tensors stay float32."""
    kind = device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.no_grad():
        if not autocast:
            yield
            return
        with torch.autocast(kind, enabled=False):
            yield


def chooses_as_given(stage: Callable[..., Merge]) -> Callable[..., Merge]:
    """A stage of a method, that is a function of the method and of the tokens it looks at, under :func:`as_given`."""

    @functools.wraps(stage)
    def choose(method: Any, *given: Any, **named: Any) -> Merge:
        seen = next(iter((*given, *named.values())), None)
        looked_at = seen.features if isinstance(seen, VideoTokens) else getattr(seen, "hidden", None)
        with as_given(torch.device("cpu") if looked_at is None else looked_at.device):
            return stage(method, *given, **named)

    return choose
