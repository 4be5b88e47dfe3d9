"""How a long video is read."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How a long video is read, and what may be left of it.

    Args:
        window: seconds of video that are merged at a time; this many are in memory.
        tokens: how many visual tokens the whole video may have in the LLM, those that are no patches (a newline)
            included; exactly as many are used, where the video has them. None: the method's own retention, window by
            window.
        fps: frames to sample per second.
        frames: how many to sample of the whole video instead.
        batch: frames that go through the vision tower at a time.

    Raises:
        ValueError: naming the parameter that is out of range.
    """

    window: float = 60.0
    tokens: int | None = None
    fps: float | None = 1.0
    frames: int | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        if not (math.isfinite(self.window) and self.window > 0):
            raise ValueError(f"window is a length in seconds and must be above 0, got {self.window!r}")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {self.tokens!r}")
        if (self.fps is None) == (self.frames is None):
            raise ValueError(f"give either fps or frames, got fps={self.fps!r} and frames={self.frames!r}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be above 0, got {self.fps!r}")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames!r}")
        if self.batch < 1:
            raise ValueError(f"batch is a number of frames and must be at least 1, got {self.batch!r}")

    @classmethod
    def of(
        cls, window: float | None, tokens: int | None, fps: float | None, frames: int | None = None
    ) -> Reading | None:
        """From options of which any may be left out: None without ``window`` and ``tokens``."""
        if window is None and tokens is None:
            return None
        rate = 1.0 if fps is None and frames is None else fps
        return cls(60.0 if window is None else window, tokens, rate, frames)

    def window_frames(self, rate: float) -> int:
        """W, the sampled frames of a window, for a video sampled at ``rate`` frames per second."""
        return max(1, round(self.window * rate))
