"""A video of any length, whose sampled frames arrive a few at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holitom.video.clip import Clip
from holitom.video.container import REPAIR, Contents, Reader, scan
from holitom.video.decode import existing
from holitom.video.errors import VideoError
from holitom.video.film import CannotEnter, Converter, damage, frames_by_time
from holitom.video.images import folder_frames, folder_names, is_picture, picture_delays, picture_frames
from holitom.video.sampling import sample_by_rate, sample_indexes

logger = logging.getLogger(__name__)

Frames = Generator[tuple[int, NDArray[np.uint8]], None, "str | None"]
"""(slot, (H, W, 3)) in ascending order of slots; returns what is wrong with the video, or None."""


@dataclass(eq=False)
class VideoStream:
    """Which frames of a video will come, and then the frames.

    Attributes:
        indexes: (T,) int64, the places of the sampled frames in the video, ascending. Of a damaged video, fewer may
            come: the clips say which.
        times: (T,) float64, seconds from the video's first frame, as the file promises them.
        fps: average frames per second of the whole video. total_frames: its frames. duration: in seconds.
        source: the path as the caller gave it.
        warning: what is wrong with the video; complete once it has been read to its end.
    """

    indexes: NDArray[np.int64]
    times: NDArray[np.float64]
    fps: float
    total_frames: int
    duration: float
    source: str
    read: Callable[[], Frames]
    warning: str | None = None

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
    source: str | Path,
    *,
    fps: float | None = None,
    frames: int | None = None,
    size: int | None = None,
    folder_fps: float = 1.0,
) -> VideoStream:
    """Looks through a video and says which frames will be sampled; decodes them in one pass when they are asked for.

    Args:
        source: a file or a folder of images, as for :func:`holitom.video.read_video`.
        fps: take the frame on display at 0, 1/fps, 2/fps, ... seconds; one that stays longer is taken once. Exact
            also where the frame rate varies.
        frames: take so many, as :func:`read_video` does, instead of ``fps``.
        size, folder_fps: as for :func:`read_video`.

    Raises:
        VideoError: the file is missing, empty or no video.
        ValueError: unless exactly one of ``fps`` and ``frames`` is given, above 0.
    """
    if (fps is None) == (frames is None):
        raise ValueError(f"give either fps or frames, got fps={fps!r} and frames={frames!r}")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be above 0, got {fps}")
    path = existing(source)
    if path.is_dir():
        names = folder_names(path, str(source))
        begins = np.arange(len(names)) / folder_fps
        indexes = _sample(begins, len(names) / folder_fps, fps, frames)

        def read_folder() -> Frames:
            yield from folder_frames(names, indexes, size)
            return None

        return VideoStream(
            indexes, begins[indexes], folder_fps, len(names), len(names) / folder_fps, str(source), read_folder
        )
    return (
        _picture(path, str(source), fps, frames, size)
        if is_picture(path)
        else _film(path, str(source), fps, frames, size)
    )


def _sample(begins: NDArray[np.float64], duration: float, fps: float | None, frames: int | None) -> NDArray[np.int64]:
    if frames is not None:
        return sample_indexes(len(begins), frames)
    assert fps is not None
    return sample_by_rate(begins, duration, fps)


def _picture(path: Path, source: str, fps: float | None, frames: int | None, size: int | None) -> VideoStream:
    delays, whole = picture_delays(path, source)
    begins = np.cumsum([0.0, *delays])
    indexes = _sample(begins[:-1], float(begins[-1]), fps, frames)

    def read() -> Frames:
        yield from picture_frames(path, indexes, size)
        return None if whole else "cut off: the animation ends in the middle of a frame"

    rate = len(delays) / float(begins[-1])
    return VideoStream(indexes, begins[indexes], rate, len(delays), float(begins[-1]), source, read)


def _film(path: Path, source: str, fps: float | None, frames: int | None, size: int | None) -> VideoStream:
    contents = scan(path, source)
    total = contents.shown
    if not total:
        raise VideoError(source, "the video stream holds no frames", f"The recording may be empty. {REPAIR}")
    length = (contents.end - contents.origin) * contents.tick
    rate = contents.fps or (total / length if length > 0 else 1.0)
    if contents.times is None:
        begins = np.arange(total, dtype=np.float64) / rate
    else:
        begins = (np.sort(contents.times[~contents.hidden]) - contents.origin).astype(np.float64) * contents.tick
    duration = length if length > 0 else total / rate
    indexes = _sample(begins, duration, fps, frames)

    def read() -> Frames:
        return _decode(path, source, contents, indexes, size, length)

    return VideoStream(indexes, begins[indexes], rate, total, duration, source, read)


def _decode(
    path: Path, source: str, contents: Contents, indexes: NDArray[np.int64], size: int | None, length: float
) -> Frames:
    """One pass over a film. Where it turns out that decoding cannot begin in the middle, a second one over the rest."""
    convert, last, errors, whole = Converter(size), -1, 0, contents.times is None
    if contents.times is not None:
        with Reader(path, source) as reader:
            try:
                for slot, frame in frames_by_time(reader, contents, contents.times, indexes, stand_in=True):
                    last = slot
                    yield slot, convert(frame)
            except CannotEnter:
                whole = True
            errors = reader.errors
    if whole:
        slots = {int(index): slot for slot, index in enumerate(indexes) if slot > last}
        with Reader(path, source) as reader:
            for order, frame in enumerate(reader.frames()):
                if order in slots:
                    yield slots[order], convert(frame)
            errors = reader.errors
    return damage(contents, length, errors, convert.corrupt)
