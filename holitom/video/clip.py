"""What decoding hands to preprocessing: a few frames and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holitom.video.sampling import sample_by_rate, sample_indexes


@dataclass(frozen=True, eq=False)
class Clip:
    """Sampled frames of one video. T frames of H rows and W columns.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB, upright (rotation metadata applied), T >= 1.
        indexes: (T,) int64, the place of each frame in the video, counted from 0 in display order, ascending.
        times: (T,) float64, seconds from the video's first frame.
        fps: average frames per second of the whole video, above 0.
        total_frames: frames in the video that can be decoded, above every index.
        duration: seconds from the first frame to the end of the last one.
        source: the path or address as the caller gave it; a word in angle brackets for what has none.
        warning: what is wrong with a video of which only a part could be read; None for a sound one.
    """

    frames: NDArray[np.uint8]
    indexes: NDArray[np.int64]
    times: NDArray[np.float64]
    fps: float
    total_frames: int
    duration: float
    source: str
    warning: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8:
            kind = self.frames.dtype if isinstance(self.frames, np.ndarray) else type(self.frames).__name__
            raise TypeError(f"frames must be a uint8 array (T, H, W, 3), got {kind}")
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or 0 in self.frames.shape:
            raise ValueError(f"frames must be (T, H, W, 3) with no empty side, got {self.frames.shape}")
        count = len(self.frames)
        for name, array, dtype in (("indexes", self.indexes, np.int64), ("times", self.times, np.float64)):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise TypeError(f"{name} must be a {np.dtype(dtype)} array, got {getattr(array, 'dtype', type(array))}")
            if array.shape != (count,):
                raise ValueError(f"{name} must be ({count},), one for each frame, got {array.shape}")
        if (np.diff(self.indexes) <= 0).any() or self.indexes[0] < 0 or self.indexes[-1] >= self.total_frames:
            raise ValueError(f"indexes must ascend within 0..{self.total_frames - 1}, got {self.indexes.tolist()}")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be above 0, got {self.fps}")
        if not (np.isfinite(self.duration) and self.duration >= 0):
            raise ValueError(f"duration must be 0 or more seconds, got {self.duration}")

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def from_frames(cls, frames: NDArray[np.uint8], fps: float = 1.0, source: str = "array") -> Clip:
        """A clip of frames that are already in memory, all of them kept.

        Args:
            frames: (T, H, W, 3) uint8, RGB.
            fps: how many of them are shown in a second.
            source: their name in messages.
        """
        count = len(frames)
        indexes = np.arange(count, dtype=np.int64)
        return cls(frames, indexes, indexes / fps, float(fps), count, count / fps, source)

    def sample(self, frames: int | None = None, fps: float | None = None) -> Clip:
        """Some of the frames, as :func:`~holitom.video.read_video` samples a file.

        Args:
            frames: so many, spread evenly.
            fps: instead, those on display at 0, 1/fps, 2/fps, ... seconds.

        Raises:
            ValueError: when there are fewer frames than asked for.
        """
        if frames is None and fps is None:
            return self
        if frames is not None and fps is not None:
            raise ValueError(f"give either fps or frames, got fps={fps!r} and frames={frames!r}")
        if frames is not None:
            chosen = sample_indexes(len(self), frames)
            if frames > len(self):
                raise ValueError(f"{self.source} has {len(self)} frames, of which frames={frames} cannot be taken")
        else:
            chosen = sample_by_rate(self.times - self.times[0], self.duration, float(fps or 0))
        return replace(self, frames=self.frames[chosen], indexes=self.indexes[chosen], times=self.times[chosen])
