"""Still images: opening them, turning them into RGB, and folders of them as videos."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from holitom.video.errors import VideoError
from holitom.video.formats import is_jpeg_stream
from holitom.video.limits import RAISE, require_frame
from holitom.video.orientation import Fit, fitted

# HEIF is there where the package pillow-heif has been registered.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
ORIENTATION = 0x0112  # EXIF
SAMPLE_FORMAT = 339  # TIFF; 1: unsigned integers
_HEIF = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
_TILES = re.compile(rb"infe.{8,10}grid", re.DOTALL)  # the entry of an item that is made of tiles


def formats() -> list[str]:
    """The formats of pictures that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_picture(path: Path) -> bool:
    """Whether a file is an image or an animation by its content. (A stream of JPEGs is a film.)"""
    try:
        with Image.open(path, formats=formats()):
            return not is_jpeg_stream(path)
    except Image.DecompressionBombError:
        return True
    except Exception:  # whatever Pillow's readers stumble over
        return False


def refuse_tiles(path: Path, source: str) -> None:
    """Refuses a HEIF picture of several tiles that Pillow cannot read: FFmpeg would show one tile.

    Raises:
        VideoError: for such a picture.
    """
    with path.open("rb") as file:
        head = file.read(2**16)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF and _TILES.search(head):
        raise VideoError(
            source,
            "a HEIF picture made of tiles, which this Pillow cannot read",
            "Convert it to JPEG, or `pip install pillow-heif` and call pillow_heif.register_heif_opener().",
        )


@contextmanager
def opened(picture: Path | Image.Image, source: str) -> Iterator[Image.Image]:
    """A picture, with every failure turned into ours, those of what is done with it included.

    Raises:
        VideoError: when it cannot be read or is too large.
    """
    try:
        with (
            nullcontext(picture)
            if isinstance(picture, Image.Image)
            else Image.open(picture, formats=formats()) as image
        ):
            require_frame(source, image.height * image.width)
            yield image
    except VideoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if pixels := re.search(r"\((\d+) pixels\)", str(error)):
            require_frame(source, int(pixels[1]))
        raise VideoError(source, f"too large ({error})", f"Make it smaller, {RAISE}") from error
    except MemoryError as error:
        raise VideoError(source, "does not fit into memory", "Make it smaller.") from error
    except Exception as error:  # Pillow raises almost anything, depending on where its readers stumble
        said = " ".join(str(error).replace(str(picture), source).split()) or type(error).__name__
        raise VideoError(source, f"not one frame of it could be decoded ({said})", "Replace the file.") from error


def folder_names(path: Path, source: str) -> list[Path]:
    """The images of a folder in natural order.

    Raises:
        VideoError: when there are none.
    """
    known = formats()
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in known}
    names = sorted(
        (f for f in path.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()),
        key=lambda file: _natural(file.name),
    )
    if not names:
        raise VideoError(
            source, "the folder holds no images", f"Put frames in it as {', '.join(sorted(suffixes))} files."
        )
    return names


def frames_of(
    pictures: Sequence[Path | Image.Image | NDArray[np.uint8]],
    source: str,
    indexes: NDArray[np.int64],
    size: Fit = None,
) -> Generator[tuple[int, NDArray[np.uint8]], None, int]:
    """The pictures at ``indexes``, one after the other: (slot, (H, W, 3)). Returns how many there are.

    Raises:
        VideoError: for a picture that cannot be read or differs in size from the first one.
    """
    shape: tuple[int, ...] | None = None
    for slot, index in enumerate(indexes):
        picture = pictures[index]
        name = str(picture) if isinstance(picture, Path) else f"{source}[{index}]"
        if isinstance(picture, np.ndarray):
            frame = picture if size is None else to_rgb(Image.fromarray(picture), size)
        else:
            with opened(picture, name) as image:
                frame = to_rgb(image, size)
        shape = frame.shape if shape is None else shape
        if frame.shape != shape:
            raise VideoError(
                name,
                f"is {frame.shape[1]}x{frame.shape[0]} pixels, while the first frame is {shape[1]}x{shape[0]}",
                "Give all frames of one video one size.",
            )
        yield slot, frame
    return len(pictures)


def to_rgb(image: Image.Image, size: Fit) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: upright by its EXIF note, transparency dropped as the image processors of transformers do."""
    unsigned = image.mode == "I" and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (2,))[0] == 1
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        values = np.asarray(image)
        image = Image.fromarray(_in_bytes(values.view(np.uint32) if unsigned else values))  # Pillow knows no sign
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    height, width = fitted(rgb.height, rgb.width, size)
    if (height, width) != (rgb.height, rgb.width):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    frame: NDArray[np.uint8] = np.asarray(rgb, dtype=np.uint8)
    return size(frame) if callable(size) else frame


def _in_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) of 16 or 32 bits to uint8, black to white.

    16 bits (also in 32) go over 256, as in FFmpeg. Floats are black at 0 and white at 1; larger numbers are scaled so
    that the largest is white, and with negative ones, the smallest is black.
    """
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(numbers.min())), float(numbers.max())
    if values.dtype.kind == "f":
        white = max(1.0, high)
    else:
        white = 255.0 if values.itemsize == 4 and low >= 0 and high < 256 else 65280.0 if high < 65536 else high
    scaled = np.floor((numbers - low) * (255 / (white - low)) + 0.5)
    bytes_of: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return bytes_of


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which "shot 9" comes before "shot 10"."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
