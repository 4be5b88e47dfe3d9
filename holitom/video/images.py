"""Videos that are made of still images: folders, and animated GIF, WebP or PNG files."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from holitom.video.errors import VideoError
from holitom.video.formats import is_jpeg_stream
from holitom.video.orientation import fitted

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow raises for files that are no images, or broken ones, depending on where its readers stumble.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
DEFAULT_DELAY = 0.1  # seconds; what browsers show a GIF frame for that names no delay


def is_picture(path: Path) -> bool:
    """Whether a file is an image or an animation by its content. (A stream of JPEGs is a film.)"""
    try:
        with Image.open(path, formats=FORMATS):
            return not is_jpeg_stream(path)
    except BROKEN:
        return False


def folder_names(path: Path, source: str) -> list[Path]:
    """The images of a folder in natural order.

    Raises:
        VideoError: when there are none.
    """
    names = sorted(
        (f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()),
        key=lambda file: _natural(file.name),
    )
    if not names:
        raise VideoError(
            source, "the folder holds no images", f"Put frames in it as {', '.join(sorted(SUFFIXES))} files."
        )
    return names


def folder_frames(
    names: list[Path], indexes: NDArray[np.int64], size: int | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The images at ``indexes``, one after the other: (slot, (H, W, 3)).

    Raises:
        VideoError: for an image that cannot be read or differs in size from the first one.
    """
    shape: tuple[int, ...] | None = None
    for slot, index in enumerate(indexes):
        name = names[index]
        try:
            with Image.open(name, formats=FORMATS) as image:
                frame = _rgb(image, size)
        except BROKEN as error:
            raise VideoError(str(name), f"not an image that can be read ({error})", "Replace or remove it.") from error
        shape = frame.shape if shape is None else shape
        if frame.shape != shape:
            raise VideoError(
                str(name),
                f"is {frame.shape[1]}x{frame.shape[0]} pixels, while {names[indexes[0]].name} is {shape[1]}x{shape[0]}",
                "Give all frames of a folder one size.",
            )
        yield slot, frame


def picture_frames(
    path: Path, indexes: NDArray[np.int64], size: int | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The frames of an animation at ``indexes``, one after the other: (slot, (H, W, 3))."""
    slots = {int(index): slot for slot, index in enumerate(indexes)}
    with Image.open(path, formats=FORMATS) as image:
        for order, frame in enumerate(_sequence(image)):
            if order in slots:
                yield slots[order], _rgb(frame, size)
            if order == indexes[-1]:
                return


def picture_delays(path: Path, source: str) -> tuple[list[float], bool]:
    """Seconds that each frame is shown, and whether the file could be read to its end."""
    delays: list[float] = []
    whole = True
    try:
        with Image.open(path, formats=FORMATS) as image:
            for frame in _sequence(image):
                frame.load()
                delays.append(float(frame.info.get("duration") or DEFAULT_DELAY * 1000) / 1000)
    except BROKEN as error:
        whole = False
        if not delays:
            raise VideoError(source, f"not one frame of it could be decoded ({error})", "Replace the file.") from error
    return delays, whole


def _sequence(image: Image.Image) -> Iterator[Image.Image]:
    return iter(ImageSequence.Iterator(image))


def _rgb(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: upright by its EXIF note, transparency dropped as the image processors of transformers do."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    height, width = fitted(upright.height, upright.width, size)
    if (height, width) != (upright.height, upright.width):
        upright = upright.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(upright, dtype=np.uint8)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which "shot 9" comes before "shot 10"."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
