"""Budgets by content: a method keeps as many tokens as say something new, and no more than its retention."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holitom.methods.base import Method
from holitom.ops.content import new_tokens
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class ContentBudget(Method):
    """A method before the LLM with an exact count that can follow from what changes in a video.

    Args:
        change: keep as many tokens as lie further than this from the latest new one at their position (about 1 for
            unrelated tokens, see :func:`holitom.ops.content.new_tokens`), at most the retention's. The count then
            depends on the content. None: the retention alone counts.

    Raises:
        ValueError: when it is negative.
    """

    change: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.change is not None and not self.change >= 0:
            raise ValueError(f"change is a distance, 0 or more (about 1 for unrelated tokens), got {self.change!r}")

    def _capped(self) -> Any:
        """This method without the threshold: what its retention alone keeps, exactly."""
        changes: Any = {"change": None, "exact": True}
        return dataclasses.replace(self, **changes)

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """See :meth:`Method.token_count`; unknown with a threshold."""
        if self.change is None:
            return super().token_count(frames, grid)
        most = self._capped().token_count(frames, grid)
        raise ValueError(
            f"with change={self.change!r} the token count depends on the video's content: here it is at most {most}. "
            "Leave change out where it must be known"
        )

    def with_token_count(self, count: int, frames: int, grid: tuple[int, int]) -> Method:
        """See :meth:`Method.with_token_count`; the threshold goes."""
        if self.change is None:
            return super().with_token_count(count, frames, grid)
        found: Method = self._capped().with_token_count(count, frames, grid)
        return found

    def wanted(self, video: VideoTokens) -> tuple[int, np.ndarray]:
        """How many tokens to keep of a video, with a threshold; (T, N) bool, which are new. Waits for the device."""
        assert self.change is not None
        new = new_tokens(video.features, self.change)
        return min(int(new.sum()), self._capped().token_count(video.frames, video.grid)), new
