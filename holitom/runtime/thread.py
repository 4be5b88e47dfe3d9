"""What is in progress in this thread: a call of the model, of its video encoder, of ``generate()``.

Hooks and observers learn from here which call they belong to. So threads that share a model, a session or both never
see each other's videos.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from holitom.models.base import VideoLayout

if TYPE_CHECKING:
    from holitom.runtime.call import Call
    from holitom.runtime.session import Session
    from holitom.runtime.tower import TowerPass

Observer = Callable[[Tensor, Tensor, float], None]
"""Called with queries (B, H, Q, d) and keys (B, G, L, d), after rotary embedding and norms, and the scale of logits."""


class Given:
    """What a call brings of its prompt, also on the CPU: copied once, in front of the vision tower if pixels came."""

    ids: Tensor | None
    mask: Any

    @cached_property
    def ids_on_host(self) -> Tensor | None:
        """(B, Q) int64."""
        return None if self.ids is None else self.ids.cpu()

    @cached_property
    def mask_on_host(self) -> Tensor | None:
        """(B, L) bool; None for a mask of another shape."""
        return self.mask.bool().cpu() if isinstance(self.mask, Tensor) and self.mask.dim() == 2 else None


@dataclass(eq=False)
class Generation(Given):
    """A call of ``generate()`` in progress.

    Args:
        session: the one at work.
        outer: the generation around this one, or None.
        ids: (B, L) it was called with; prompt lookup appends candidates, and without a cache every step repeats them.
        mask: the mask it was called with.
        in_chunks: whether it splits the prompt.
        layouts: the videos that were encoded for it.
    """

    session: Session
    outer: Generation | None
    ids: Tensor | None = None
    mask: Any = None
    in_chunks: bool = False
    layouts: list[VideoLayout] | None = None


@dataclass(eq=False)
class Encoding:
    """A call of the video encoder in progress.

    Args:
        observers: by attention module of the vision tower.
        tower: the stage inside it.
    """

    observers: dict[nn.Module, Observer] = field(default_factory=dict)
    tower: TowerPass | None = None


class _Here(threading.local):
    """One for each thread."""

    call: Call | None = None
    encoding: Encoding | None = None
    generation: Generation | None = None
    reads_prefix = False

    def observers(self, module: nn.Module) -> list[Observer]:
        """Who wants to see queries and keys of an attention module."""
        working = (self.encoding, self.call)
        return [work.observers[module] for work in working if work is not None and module in work.observers]

    def rows(self, module: nn.Module) -> TowerPass | None:
        """The stage inside the vision tower, where it has merged what reaches an attention module."""
        tower = None if self.encoding is None else self.encoding.tower
        return tower if tower is not None and tower.routes(module) else None


here = _Here()
