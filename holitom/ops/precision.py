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
    def choose(method: Any, seen: Any) -> Merge:
        with as_given((seen.features if isinstance(seen, VideoTokens) else seen.hidden).device):
            return stage(method, seen)

    return choose
