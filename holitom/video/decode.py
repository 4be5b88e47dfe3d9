"""From a video file, a folder of images or an animation to a :class:`Clip` of sampled frames."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holitom.video.clip import Clip
from holitom.video.container import REPAIR
from holitom.video.contents import USUAL_RATE
from holitom.video.errors import VideoError
from holitom.video.film import Film, Frames
from holitom.video.images import folder_names, is_picture, refuse_tiles
from holitom.video.limits import require_kept
from holitom.video.orientation import Fit, Shrink
from holitom.video.pictures import Pictures
from holitom.video.remote import LIMITS, FetchLimits
from holitom.video.sampling import FrameRate, SamplingRule, sample_by_rate, sample_indexes
from holitom.video.sources import Located, Source, located

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken, as the caller asks for it, and from what.

    Attributes:
        frames: so many, or so many as a rate asks for, spread evenly by number; or None.
        fps: those on display at 0, 1/fps, 2/fps, ... seconds; or None.
        rule: where ``frames`` are taken.
        size: pixels of the shorter side, a function that makes frames smaller, or None.
        folder_fps: frames per second that a folder of images stands for.
        playlists: whether a playlist may be opened, and so what it names.

    Raises:
        TypeError: a parameter is of another kind.
        ValueError: a parameter is out of its range.
    """

    frames: int | FrameRate | None
    fps: float | None
    rule: SamplingRule
    size: int | Shrink | None
    folder_fps: float
    playlists: bool

    def __post_init__(self) -> None:
        if (self.fps is None) == (self.frames is None):
            raise ValueError(f"give either fps or frames, got fps={self.fps!r} and frames={self.frames!r}")
        if self.frames is not None and not isinstance(self.frames, FrameRate):
            sample_indexes(1, self.frames, self.rule)
        if isinstance(self.size, bool) or not (self.size is None or isinstance(self.size, int) or callable(self.size)):
            raise TypeError(f"size must be an int number of pixels, a function or None, got {self.size!r}")
        if isinstance(self.size, int) and self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        for name, value in (("fps", self.fps), ("folder_fps", self.folder_fps)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, got {value}")

    def open(self, place: Located) -> Film | Pictures:
        """Looks through a video without decoding it.

        Raises:
            VideoError: when there is none that can be read.
        """
        if place.pictures is not None:
            return Pictures.listed(place.pictures, place.name, self.folder_fps)
        assert place.path is not None
        if place.path.is_dir():
            return Pictures.listed(folder_names(place.path, place.name), place.name, self.folder_fps)
        if is_picture(place.path):
            return Pictures.file(place.path, place.name)
        refuse_tiles(place.path, place.name)
        return Film.scanned(place.path, place.name, self.playlists)

    def fit(self, count: int) -> Fit:
        """How each of ``count`` frames is made smaller."""
        size = self.size
        return (lambda frame: size(frame, count)) if callable(size) else size

    def take(self, video: Film | Pictures) -> NDArray[np.int64]:
        """(T,) the indexes of the frames to take from it."""
        if self.fps is not None:
            return sample_by_rate(video.begins, video.duration, self.fps)
        if isinstance(self.frames, FrameRate):
            return self.frames.take(len(video.begins), video.duration)
        assert self.frames is not None
        return sample_indexes(len(video.begins), self.frames, self.rule)


def average_rate(video: Film | Pictures) -> float:
    """Frames per second over the whole length."""
    return len(video.begins) / video.duration if video.duration > 0 else USUAL_RATE


def read_video(
    source: Source,
    frames: int | FrameRate | None = None,
    *,
    fps: float | None = None,
    rule: SamplingRule = "floor",
    size: int | Shrink | None = None,
    folder_fps: float = 1.0,
    playlists: bool = False,
    limits: FetchLimits = LIMITS,
) -> Clip:
    """Decode a few frames of a video: so many, spread evenly by frame number, or so many a second.

    Memory grows with the frames that are kept, not with the length of the film.

    Args:
        source: path or address (file, http, https, s3, ...) of a video, an animated GIF, WebP, PNG or AVIF, or a still
            image; path of a folder of images (one frame each, in natural order of their names); the bytes of a file, or
            an open binary file; frames in memory as an array or tensor (T, H, W, 3) or (T, 3, H, W), uint8 or floats
            from 0 to 1; a list of PIL images, paths or arrays (H, W, 3).
        frames: frames wanted, at least 1; a video with fewer gives all it has. 32 when ``fps`` is not given either.
            A :class:`holitom.video.FrameRate` lets the count depend on the length, as Qwen's models do.
        fps: take the frame on display at 0, 1/fps, 2/fps, ... seconds instead; one that stays longer is taken once.
        rule: where ``frames`` are taken, see :func:`holitom.video.sample_indexes`.
        size: bring the shorter side down to this many pixels while decoding; None keeps the size of the file. A
            function of a frame (H, W, 3) and of T gives a smaller one, as :meth:`Preprocessor.shrink` does, with which
            the frames have the size of the model's input, and memory is theirs.
        folder_fps: frames per second that a folder, a list or an array of images stands for.
        playlists: open a playlist (HLS, DASH, concat) and the local files that it names. Only where all are trusted.
        limits: size and time of fetching an address.

    Returns:
        A :class:`Clip` of T frames (T, H, W, 3) uint8 RGB. A damaged or cut-off video of which some frames decode gives
        a clip sampled over those, with ``warning`` set and logged.

    Raises:
        VideoError: the file is missing, empty, no video, too large, or not one frame of it can be decoded.
        TypeError: the source, or a parameter, is of another kind.
        ValueError: a parameter is out of its range.
    """
    if frames is None and fps is None:
        frames = 32
    sampling = Sampling(frames, fps, rule, size, folder_fps, playlists)
    place = located(source, limits)
    video = sampling.open(place)
    while True:
        indexes = sampling.take(video)
        kept, warning = _kept(
            video.frames(indexes, sampling.fit(len(indexes)), stand_in=False), len(indexes), place.name
        )
        better = video.better
        if better is None or (better.counted and np.array_equal(sampling.take(better), indexes)):
            video = better or video
            break
        video = better
    if kept is None:
        raise VideoError(place.name, "decodes differently each time it is read", f"The file is damaged. {REPAIR}")
    total = len(video.begins)
    clip = Clip(kept, indexes, video.begins[indexes], average_rate(video), total, video.duration, place.name, warning)
    if warning is not None:
        logger.warning("%s: %s; sampling the %d frames that decode. %s", place.name, warning, total, REPAIR)
    return clip


def _kept(frames: Frames, count: int, source: str) -> tuple[NDArray[np.uint8] | None, str | None]:
    """The frames in one array (count, H, W, 3), or None where not all came; and what is wrong with the video."""
    kept: NDArray[np.uint8] | None = None
    slots: set[int] = set()
    while True:
        try:
            slot, frame = next(frames)
        except StopIteration as end:
            return (kept if len(slots) == count else None), end.value
        if kept is None:
            require_kept(source, count, frame.shape[0], frame.shape[1])
            kept = np.empty((count, *frame.shape), dtype=np.uint8)
        kept[slot] = frame
        slots.add(slot)
