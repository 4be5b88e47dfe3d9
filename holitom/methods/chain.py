"""Two methods, one after the other: any outer stage followed by any inner stage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.streaming import SegmentStream
from holitom.tokens import SpanStates, VideoTokens


@dataclass(frozen=True)
class Chain(Method):
    """``outer`` before the LLM, the inner stage of ``inner`` inside it; written ``outer | inner``.

    Raises:
        TypeError: when one of the two has no such stage.
    """

    before: Method
    inside: Method

    def __post_init__(self) -> None:
        for part in (self.before, self.inside):
            if not isinstance(part, Method):
                raise TypeError(f"a chain is made of methods, got {part!r}")
        if not self.before.outer:
            raise TypeError(f"{self.before!r} has no stage before the LLM: put it on the right of |")
        if self.inside.attention == "none" and type(self.inside).layers is Method.layers:
            raise TypeError(f"{self.inside!r} has no stage inside the LLM: put it on the left of |")
        for name in ("outer", "needs", "exact_count"):
            object.__setattr__(self, name, getattr(self.before, name))
        for name in ("attention", "compacts"):
            object.__setattr__(self, name, getattr(self.inside, name))
        object.__setattr__(self, "name", f"{self.before.name}|{self.inside.name}")

    def merge_video(self, video: VideoTokens) -> Merge:
        """The outer stage of the left method."""
        return self.before.merge_video(video)

    def layers(self, depth: int) -> tuple[int, ...]:
        """The layers of the right method."""
        return self.inside.layers(depth)

    def merge_inner(self, hidden: Tensor, attention: Tensor) -> Merge:
        """The inner stage of the right method."""
        return self.inside.merge_inner(hidden, attention)

    def merge_span(self, span: SpanStates) -> Merge:
        """The inner stage of the right method."""
        return self.inside.merge_span(span)

    def sized(self, count: int, frames: int, grid: tuple[int, int]) -> Chain:
        """The left method sized."""
        return Chain(self.before.sized(count, frames, grid), self.inside)

    def part(self, count: int, frames: int, grid: tuple[int, int]) -> Chain:
        """The left method sized for a part."""
        return Chain(self.before.part(count, frames, grid), self.inside)

    def links(self, features: Tensor) -> Tensor | None:
        """Those of the left method."""
        return self.before.links(features)

    def stream(self, window: int) -> SegmentStream | None:
        """That of the left method."""
        return self.before.stream(window)

    def retained(self, frames: int, grid: tuple[int, int]) -> int:
        """The count of the left method."""
        return self.before.retained(frames, grid)
