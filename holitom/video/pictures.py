"""Animations, folders of images and still images, which are read as films are."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holitom.video.errors import VideoError
from holitom.video.film import Frames
from holitom.video.images import frames_of, opened, to_rgb
from holitom.video.limits import require_decoded
from holitom.video.orientation import Fit

ANIMATED = {"AVIF", "GIF", "PNG", "WEBP"}  # pages of a TIFF and further pictures of a JPEG are no frames
DEFAULT_DELAY = 0.1  # seconds; what browsers show a GIF frame for that names no delay
CUT_OFF = "cut off: the animation ends in the middle of a frame"
_TRAILER, _EXTENSION, _IMAGE, _CONTROL = 0x3B, 0x21, 0x2C, 0xF9
_HUNDREDTH = 0.01  # second


@dataclass(eq=False)
class Pictures:
    """Pictures that are read as a :class:`holitom.video.film.Film` is.

    Attributes:
        begins: (N,) float64, seconds from the first frame.
        duration: seconds from the first frame to the end of the last one.
        read: the frames at some indexes, made smaller. It ends early where a frame
            does not decode, and returns the number of frames before that one.
        warning: what is wrong with the file, or None.
        better: what :meth:`frames` found instead of this: the frames before one that does not decode.
    """

    begins: NDArray[np.float64]
    duration: float
    read: Callable[[NDArray[np.int64], Fit], Generator[tuple[int, NDArray[np.uint8]], None, int]]
    warning: str | None = None
    better: Pictures | None = None
    counted = True

    @classmethod
    def listed(cls, pictures: Sequence[Path | Image.Image | NDArray[np.uint8]], source: str, fps: float) -> Pictures:
        """Pictures that follow each other, ``fps`` of them a second; only those that are taken are opened."""
        count = len(pictures)
        return cls(np.arange(count) / fps, count / fps, lambda *taken: frames_of(pictures, source, *taken))

    @classmethod
    def file(cls, path: Path, source: str) -> Pictures:
        """An animation, or a still image, which is a video of one frame.

        Raises:
            VideoError: when not one frame can be read, or there are too many pixels in all of them.
        """
        delays, whole = _delays(path, source)
        ends = np.cumsum([0.0, *delays])
        warning = None if whole else CUT_OFF
        return cls(ends[:-1], float(ends[-1]), lambda *taken: _frames(path, source, *taken), warning)

    def frames(self, indexes: NDArray[np.int64], size: Fit, stand_in: bool) -> Frames:
        """As of :class:`holitom.video.film.Film`; no other picture stands in for one that does not decode."""
        done = yield from self.read(indexes, size)
        if done > indexes[-1]:
            return self.warning
        self.better = Pictures(self.begins[:done], float(self.begins[done]), self.read, CUT_OFF)
        return CUT_OFF


def _delays(path: Path, source: str) -> tuple[list[float], bool]:
    """Seconds that each frame is shown, and whether the file could be read to its end.

    Those of a GIF are read from its blocks. The other formats have to be decoded for it.
    """
    whole = True
    with opened(path, source) as image:
        if image.format == "GIF":
            given, whole, height, width = _gif_blocks(path)
            require_decoded(source, max(1, len(given)), height, width)
            delays = [delay or DEFAULT_DELAY for delay in given]
        else:
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
            require_decoded(source, count, image.height, image.width)
            delays = []
            try:
                for order in range(_first(image), count):
                    image.seek(order)
                    image.load()
                    delays.append(float(image.info.get("duration") or DEFAULT_DELAY * 1000) / 1000)
            except Exception:  # see opened(), which says what is wrong where nothing came before
                whole = False
                if not delays:
                    raise
    if not delays:
        raise VideoError(source, "not one frame of it could be decoded", "Replace the file.")
    return delays, whole


def _frames(
    path: Path, source: str, indexes: NDArray[np.int64], size: Fit
) -> Generator[tuple[int, NDArray[np.uint8]], None, int]:
    """The frames of an animation at ``indexes``, see :class:`Pictures`."""
    slots = {int(index): slot for slot, index in enumerate(indexes)}
    done = 0
    with opened(path, source) as image:
        first = _first(image)
        for index in range(int(indexes[-1]) + 1):
            try:
                image.seek(first + index)
                image.load()
                frame = to_rgb(image, size) if index in slots else None
            except Exception:  # as in _delays
                if not done:
                    raise
                break
            done += 1
            if frame is not None:
                yield slots[index], frame
    return done


def _first(image: Image.Image) -> int:
    """The place of the first frame: behind a PNG's default image, where that is no part of its animation."""
    return int(image.format == "PNG" and getattr(image, "default_image", False) and getattr(image, "n_frames", 1) > 1)


def _gif_blocks(path: Path) -> tuple[list[float | None], bool, int, int]:
    """What the blocks of a GIF say about its frames, without painting one (GIF89a specification).

    Returns:
        For each frame whose data is there, the seconds that it is shown, None where the file does not say, or says 0;
        whether the file ends where a block does; height and width of the picture that all are painted on, in pixels.

    Raises:
        struct.error: when the file is shorter than a header.
        ValueError: when it is empty.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        place = 13 + _table(flags)
        delays: list[float | None] = []
        delay: float | None = None
        try:
            while place < len(data):
                kind, place = data[place], place + 1
                if kind == _TRAILER:
                    break
                if kind == _EXTENSION:
                    if data[place] == _CONTROL:
                        delay = int.from_bytes(data[place + 3 : place + 5], "little") * _HUNDREDTH or None
                    place = _behind(data, place + 1)
                elif kind == _IMAGE:
                    left, top, across, down, flags = struct.unpack_from("<HHHHB", data, place)
                    place = _behind(data, place + 9 + _table(flags) + 1)
                    delays.append(delay)
                    width, height, delay = max(width, left + across), max(height, top + down), None
        except (IndexError, struct.error):
            return delays, False, height, width
        return delays, True, height, width


def _table(flags: int) -> int:
    """Bytes of the colour table that a descriptor's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind(data: mmap.mmap, place: int) -> int:
    """The place behind the sub-blocks that begin at ``place``; IndexError where they do not end."""
    while length := data[place]:
        place += length + 1
    return place + 1
