"""A video of any length, whose sampled frames arrive a few at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holitom.video.clip import Clip
from holitom.video.container import REPAIR
from holitom.video.decode import Sampling, average_rate
from holitom.video.errors import VideoError
from holitom.video.film import Film, Frames
from holitom.video.orientation import Shrink
from holitom.video.remote import LIMITS, FetchLimits
from holitom.video.sampling import FrameRate
from holitom.video.sources import Located, Source, located

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class VideoStream:
    """Which frames of a video will come, and then the frames.

    Attributes:
        indexes: (T,) int64, the places of the sampled frames in the video, ascending. Of a damaged video, fewer may
            come: the clips say which.
        times: (T,) float64, seconds from the video's first frame, as the file promises them.
        fps: average frames per second of the whole video.
        total_frames: its frames.
        duration: seconds from the first frame to the end of the last one.
        source: the path as the caller gave it.
        warning: what is wrong with the video; complete once it has been read to its end.
        place: keeps a temporary copy of what was fetched, or None.
    """

    indexes: NDArray[np.int64]
    times: NDArray[np.float64]
    fps: float
    total_frames: int
    duration: float
    source: str
    read: Callable[[], Frames]
    warning: str | None = None
    place: Located | None = None

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def rate(self) -> float:
        """Sampled frames per second, on average."""
        return len(self) / self.duration if self.duration > 0 else self.fps

    @classmethod
    def of(cls, clip: Clip) -> VideoStream:
        """A clip that is in memory already, frame by frame."""

        def read() -> Frames:
            yield from enumerate(clip.frames)
            return clip.warning

        return cls(clip.indexes, clip.times, clip.fps, clip.total_frames, clip.duration, clip.source, read)

    def chunks(self, frames: int) -> Iterator[Clip]:
        """All sampled frames in order, as clips of ``frames`` frames each; the last one may be shorter.

        Memory is that of one chunk. A frame that cannot be decoded is left out; see ``warning`` afterwards. Called
        again, it decodes again.

        Raises:
            VideoError: when no frame at all can be decoded.
        """
        if frames < 1:
            raise ValueError(f"a chunk has at least 1 frame, got {frames}")
        kept: list[NDArray[np.uint8]] = []
        slots: list[int] = []
        came = 0
        for slot, frame in self._frames():
            kept.append(frame)
            slots.append(slot)
            came += 1
            if len(kept) == frames:
                yield self._clip(kept, slots)
                kept, slots = [], []
        if not came:
            raise VideoError(self.source, "not one frame of it could be decoded", f"The file is damaged. {REPAIR}")
        if kept:
            yield self._clip(kept, slots)
        if came < len(self):
            lost = f"{len(self) - came} of {len(self)} sampled frames did not come out"
            self.warning = f"{self.warning}; {lost}" if self.warning else f"damaged: {lost}"
        if self.warning is not None:
            logger.warning(
                "%s: %s; going on with the %d frames that decode. %s", self.source, self.warning, came, REPAIR
            )

    def _frames(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        self.warning = yield from self.read()

    def _clip(self, frames: list[NDArray[np.uint8]], slots: list[int]) -> Clip:
        return Clip(
            np.stack(frames),
            self.indexes[slots],
            self.times[slots],
            self.fps,
            self.total_frames,
            self.duration,
            self.source,
        )


def open_video(
    source: Source,
    *,
    fps: float | None = None,
    frames: int | FrameRate | None = None,
    size: int | Shrink | None = None,
    folder_fps: float = 1.0,
    playlists: bool = False,
    limits: FetchLimits = LIMITS,
) -> VideoStream:
    """Looks through a video and says which frames will be sampled; decodes them in one pass when they are asked for.

    Where the first frames come out in another order than the file says (AVI, ASF and MXF often do not say it), the film
    is decoded once more to count its frames and find their order.

    Args:
        source: as for :func:`holitom.video.read_video`.
        fps: take the frame on display at 0, 1/fps, 2/fps, ... seconds; one that stays longer is taken once. Exact
            also where the frame rate varies.
        frames: take so many, as :func:`read_video` does, instead of ``fps``.
        size: as for :func:`read_video`.
        folder_fps: as for :func:`read_video`.
        playlists: as for :func:`read_video`.
        limits: as for :func:`read_video`.

    Raises:
        VideoError: the file is missing, empty or no video.
        ValueError: unless exactly one of ``fps`` and ``frames`` is given, above 0.
    """
    sampling = Sampling(frames, fps, "floor", size, folder_fps, playlists)
    place = located(source, limits)
    video = sampling.open(place)
    if isinstance(video, Film):
        video = video.checked()
    indexes = sampling.take(video)
    return VideoStream(
        indexes,
        video.begins[indexes],
        average_rate(video),
        len(video.begins),
        video.duration,
        place.name,
        lambda: video.frames(indexes, sampling.fit(len(indexes)), stand_in=True),
        place=place,
    )
