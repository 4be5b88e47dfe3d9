"""What methods that merge static positions over time add: where a long video may be cut into windows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from holitom.methods.base import Method
from holitom.ops.streaming import SegmentStream


@dataclass(frozen=True)
class Segmenting(Method):
    """A method that cuts a video into segments by what stays static. Long videos are cut into windows likewise."""

    def links(self, features: Tensor) -> Tensor:
        """Which positions stay the same from one frame to the next.

        Args:
            features: (T, N, D) floating point.

        Returns:
            (T-1, N) bool.
        """
        raise NotImplementedError(f"{type(self).__name__} derives from Segmenting and must say its static links")

    def stream(self, window: int) -> SegmentStream:
        """What cuts a long video into windows by its static links.

        Args:
            window: the most frames of a window.
        """
        return SegmentStream(window)

    def for_window(self, count: int, frames: int, grid: tuple[int, int]) -> Method:
        """:meth:`with_token_count` for a window of the video; what was derived from the whole video's settings stays.

        Args:
            count: tokens to keep of the window.
            frames: T of the window.
            grid: (h, w), rows and columns of a frame.
        """
        return self.with_token_count(count, frames, grid)
