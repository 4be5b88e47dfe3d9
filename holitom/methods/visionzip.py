"""VisionZip: longer is better but not necessary (Yang et al., CVPR 2025), in its form for videos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Need
from holitom.methods.exact import ExactMethod
from holitom.methods.sinks import SinkAware
from holitom.ops.ranking import rank_descending
from holitom.ops.selection import dominant_contextual
from holitom.tokens import VideoTokens

NO_TARGETS = 20 / 196  # share of a frame's positions, as published for 196


@dataclass(frozen=True)
class VisionZip(SinkAware, ExactMethod):
    """For each frame keeps the tokens that the vision tower attends to most and merges the others by similar keys.

    Paper: https://arxiv.org/abs/2412.04467. Of S = round(N * retention) tokens a frame (at least 1),
    floor(S * 54/64) are dominant and the others contextual. For each frame the dominant tokens come first, by
    position, then the contextual ones: at a retention of 1 that is all tokens, in another order.

    The official code adds the mean of the joined tokens to their target, so that contextual tokens have about double
    norm; here they are the average of the two, which points the same way.

    Args:
        retention: share of the visual tokens that enter the LLM.
        dominant: dominant tokens a frame, together with ``contextual`` instead of the retention. Published for N = 196:
            (16, 4), (25, 5), (33, 7), (42, 8).
        contextual: contextual tokens a frame.
        compare: what decides which target a token joins: the tower's ``"keys"`` (published) or the ``"features"``, for
            towers whose keys are out of reach.
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens: additional tokens are the best-scored ones
            that anchor nothing, excess outputs are those with the lowest-scored anchors; ordered by position.
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[str] = "https://arxiv.org/abs/2412.04467"
    venue: ClassVar[str] = "CVPR 2025"
    looks_at: ClassVar[str] = "patch scores, patch keys"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores", "keys"})
    exact_count: ClassVar[bool] = True
    sink_loss: ClassVar[float] = 22.0

    retention: float = 0.25
    dominant: int | None = None
    contextual: int | None = None
    compare: Literal["keys", "features"] = "keys"
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.dominant is None) != (self.contextual is None):
            raise ValueError("give both of dominant and contextual, or neither and a retention")
        if self.dominant is not None and self.contextual is not None:
            if self.dominant < 0 or self.contextual < 0 or self.dominant + self.contextual < 1:
                raise ValueError(
                    f"dominant={self.dominant!r} and contextual={self.contextual!r} are tokens a frame: at least 0 "
                    "each and 1 together"
                )
            if self.exact:
                raise ValueError("dominant and contextual bring their own count: leave them out with exact=True")
        if self.compare == "features":
            object.__setattr__(self, "needs", frozenset({"scores"}))

    def split(self, positions: int) -> tuple[int, int]:
        """The dominant and contextual tokens of a frame of N positions.

        Raises:
            ValueError: when a frame has fewer positions than that.
        """
        if self.dominant is not None and self.contextual is not None:
            if self.dominant + self.contextual > positions:
                raise ValueError(
                    f"{self!r} keeps {self.dominant + self.contextual} tokens a frame, but frames have {positions}"
                )
            return self.dominant, self.contextual
        size = max(1, round(positions * self.retention))
        dominant = math.floor(size * 54 / 64)
        return dominant, size - dominant

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """T * S, as :meth:`split` says."""
        return frames * sum(self.split(grid[0] * grid[1]))

    def choose(self, video: VideoTokens) -> tuple[Merge, Tensor]:
        """Selects and merges within each frame.

        Raises:
            ValueError: when the video has no scores, or no keys where they are compared.
        """
        scores, sinks = self.ranked(video)
        keys = video.keys if self.compare == "keys" else video.features
        if keys is None:
            raise ValueError(
                "VisionZip compares the vision tower's keys, but this video has none: pass VideoTokens(..., "
                "keys=(T, N, K)), or VisionZip(compare='features')"
            )
        return dominant_contextual(scores, keys, *self.split(video.positions), self._avoid(sinks)), scores.flatten()

    @staticmethod
    def _avoid(sinks: Tensor | None) -> Tensor | None:
        """(N,) bool: the tenth of a frame's positions with the largest sink scores are no contextual targets."""
        if sinks is None:
            return None
        return rank_descending(sinks) < round(len(sinks) * NO_TARGETS)
