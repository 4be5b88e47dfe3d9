"""Videos that are made of still images: folders, and animated GIF, WebP or PNG files."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from holitom.video.clip import Clip
from holitom.video.errors import VideoError
from holitom.video.orientation import fitted
from holitom.video.sampling import SamplingRule, sample_indexes

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow raises for files that are no images, or broken ones, depending on where its readers stumble.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
DEFAULT_DELAY = 0.1  # seconds; what browsers show a GIF frame for that names no delay


def is_picture(path: Path) -> bool:
    """Whether a file is an image or an animation by its content. (A stream of JPEGs, .mjpeg, is a film.)"""
    if path.suffix.lower() in {".mjpeg", ".mjpg"}:
        return False
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except BROKEN:
        return False


def read_folder(
    path: Path, source: str, frames: int, rule: SamplingRule = "floor", size: int | None = None, fps: float = 1.0
) -> Clip:
    """Sample a folder of images, one frame each; only the sampled ones are opened. See :func:`read_video`."""
    names = sorted(
        (f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()),
        key=lambda file: _natural(file.name),
    )
    if not names:
        raise VideoError(
            source, "the folder holds no images", f"Put frames in it as {', '.join(sorted(SUFFIXES))} files."
        )
    indexes = sample_indexes(len(names), frames, rule)
    kept: NDArray[np.uint8] | None = None
    for slot, index in enumerate(indexes):
        name = names[index]
        try:
            with Image.open(name, formats=FORMATS) as image:
                frame = _rgb(image, size)
        except BROKEN as error:
            raise VideoError(str(name), f"not an image that can be read ({error})", "Replace or remove it.") from error
        if kept is None:
            kept = np.empty((len(indexes), *frame.shape), dtype=np.uint8)
        if frame.shape != kept.shape[1:]:
            raise VideoError(
                str(name),
                f"is {frame.shape[1]}x{frame.shape[0]} pixels, while {names[indexes[0]].name} is "
                f"{kept.shape[2]}x{kept.shape[1]}",
                "Give all frames of a folder one size.",
            )
        kept[slot] = frame
    if kept is None:
        raise VideoError(source, "the folder holds no images", "Put frames in it.")
    return Clip(kept, indexes, indexes / fps, float(fps), len(names), len(names) / fps, source)


def read_picture(path: Path, source: str, frames: int, rule: SamplingRule = "floor", size: int | None = None) -> Clip:
    """Sample an animation; a still image is a video of one frame. See :func:`read_video`.

    A first pass through the animation counts its frames and adds up their delays, a second one keeps the sampled ones.
    """
    delays, whole = _delays(path, source)
    indexes = sample_indexes(len(delays), frames, rule)
    slots = {int(index): slot for slot, index in enumerate(indexes)}
    kept: NDArray[np.uint8] | None = None
    with Image.open(path, formats=FORMATS) as image:
        for order, frame in enumerate(_sequence(image)):
            if order in slots:
                rgb = _rgb(frame, size)
                kept = np.empty((len(indexes), *rgb.shape), dtype=np.uint8) if kept is None else kept
                kept[slots[order]] = rgb
            if order == indexes[-1]:
                break
    if kept is None:
        raise VideoError(source, "not one frame of it could be decoded", "Replace the file.")
    begins = np.cumsum([0.0, *delays])
    duration = float(begins[-1])
    warning = None if whole else "cut off: the animation ends in the middle of a frame"
    return Clip(kept, indexes, begins[indexes], len(delays) / duration, len(delays), duration, source, warning)


def _delays(path: Path, source: str) -> tuple[list[float], bool]:
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
