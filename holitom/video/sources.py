"""What a video can be given as: a path, an address, bytes, an open file, arrays or pictures."""

from __future__ import annotations

import io
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from holitom.video.errors import VideoError

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any] | torch.Tensor | Sequence[str | os.PathLike[str] | Any]"
)
TAKEN = (
    "a path, an address (file, http or https), the bytes of a file, an open binary file, frames as an array or tensor "
    "(T, H, W, 3) or (T, 3, H, W), or a list of PIL images, of paths of images or of arrays (H, W, 3)"
)
DOWNLOAD_SIZE = 4_000_000_000  # bytes
DOWNLOAD_TIME = 300.0  # seconds
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(data):[^,]*,")
_LONGEST_NAME = 300  # characters of a name in messages
_PART, _ANSWER = 2**16, 30.0  # bytes that are read at a time; seconds that a server may be silent


@dataclass(frozen=True, eq=False)
class Located:
    """Where a video lies.

    Attributes:
        name: what messages and :class:`Clip.source` call it.
        path: its file or folder; None for pictures in memory.
        pictures: frames in memory, each a PIL image, a path or an array (H, W, 3); None for a file or folder.
        copy: a temporary file that is there as long as this object.
    """

    name: str
    path: Path | None = None
    pictures: Sequence[Any] | None = None
    copy: Any = None


def located(source: Any, download_size: int = DOWNLOAD_SIZE, timeout: float = DOWNLOAD_TIME) -> Located:
    """Finds a video, and fetches or writes it to a temporary file where it is none.

    Args:
        source: see ``TAKEN``.
        download_size: the most bytes that are fetched from an address or read from an open file.
        timeout: the most seconds that fetching may take.

    Raises:
        VideoError: there is no such video, it is empty, or it cannot be fetched.
        TypeError: the source is of another kind.
    """
    if isinstance(source, (str, os.PathLike)):
        return _named(os.fsdecode(source), download_size, timeout)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _copied(io.BytesIO(source).read, "<bytes>", download_size)
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"source is a file that is open as text: open it with mode 'rb', or give {TAKEN}")
    if callable(getattr(source, "read", None)):
        return _file(source, download_size)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return Located("<array>", pictures=list(_in_bytes(source, "<array>")))
    if isinstance(source, (list, tuple)):
        return Located("<list>", pictures=[_picture(item, place) for place, item in enumerate(_filled(source))])
    raise TypeError(f"source must be {TAKEN}, got {type(source).__name__}")


def _named(name: str, download_size: int, timeout: float) -> Located:
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
    if scheme := _SCHEME.match(name):
        kind = (scheme[1] or scheme[2]).lower()
        if kind in {"http", "https"}:
            return _fetched(name, shown, download_size, timeout)
        if kind != "file":
            raise VideoError(
                shown if kind != "data" else "data:...",
                f"an address of the kind {kind}, which is not read",
                "Download it first and give its path, or an address that begins with http, https or file.",
            )
        address = urlsplit(name)
        if address.netloc not in {"", "localhost"}:
            raise VideoError(shown, f"an address on the machine {address.netloc}", "Give the path of a local file.")
        return Located(shown, _existing(Path(urllib.request.url2pathname(address.path)), shown))
    return Located(shown, _existing(Path(name), shown))


def _existing(path: Path, name: str) -> Path:
    try:
        if not path.exists() and str(path).startswith("~"):
            with suppress(RuntimeError):  # no user of that name
                path = path.expanduser()
        if not path.exists():
            raise VideoError(name, "no such file or folder", "Check the path.")
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(name, "the file is empty (0 bytes)", "Copy or download it again.")
        if not (path.is_file() or path.is_dir()):
            raise VideoError(name, "neither a file nor a folder", "Give a video file or a folder of images.")
    except OSError as error:
        raise VideoError(name, f"cannot be opened ({error.strerror})", "Check the path and its permissions.") from error
    return path


def _file(file: Any, download_size: int) -> Located:
    """An open file from its beginning, whatever has been read of it; its place stays as it was."""
    named = getattr(file, "name", None)
    name = named if isinstance(named, str) else f"<{type(file).__name__}>"
    try:
        place = file.tell()
        file.seek(0)
    except (AttributeError, OSError):  # a pipe or an answer of a server
        return _copied(file.read, name, download_size)
    try:
        return _copied(file.read, name, download_size)
    finally:
        file.seek(place)


def _fetched(address: str, name: str, download_size: int, timeout: float) -> Located:
    end = time.monotonic() + timeout
    asked = urllib.request.Request(address, headers={"User-Agent": "holitom"})
    try:
        with urllib.request.urlopen(asked, timeout=min(timeout, _ANSWER)) as answer:
            if int(answer.headers.get("Content-Length") or 0) > download_size:
                raise _too_large(name, download_size)

            def read(size: int) -> bytes:
                if time.monotonic() > end:
                    raise VideoError(
                        name, f"was not fetched within {timeout:g} seconds", "Raise timeout, or download it first."
                    )
                return bytes(answer.read1(size))

            return _copied(read, name, download_size)
    except urllib.error.HTTPError as error:
        raise VideoError(name, f"the server answered {error.code} {error.reason}", "Check the address.") from error
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        said = getattr(error, "reason", None) or error
        raise VideoError(name, f"cannot be fetched ({said})", "Check the address and the network.") from error


def _copied(read: Callable[[int], bytes], name: str, size: int) -> Located:
    copy = NamedTemporaryFile(prefix="holitom-")  # noqa: SIM115 (it lives as long as what is returned)
    written = 0
    while part := read(_PART):
        if not isinstance(part, bytes):
            raise TypeError(f"{name} gives {type(part).__name__} and no bytes: open it with mode 'rb'")
        written += copy.write(part)
        if written > size:
            raise _too_large(name, size)
    if not written:
        raise VideoError(name, "holds nothing (0 bytes)", "Check where it comes from.")
    copy.flush()
    return Located(name, Path(copy.name), copy=copy)


def _too_large(name: str, size: int) -> VideoError:
    return VideoError(name, f"is larger than {size:,} bytes", "Raise download_size, or download it first.")


def _filled(source: Sequence[Any]) -> Sequence[Any]:
    if not len(source):
        raise VideoError("<list>", "an empty list", f"Give {TAKEN}.")
    return source


def _picture(item: Any, place: int) -> Any:
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, (str, os.PathLike)):
        return _existing(Path(item), os.fsdecode(item))
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return _in_bytes(item[None], f"<list>[{place}]")[0]
    raise TypeError(
        f"a list of pictures holds PIL images, paths of images or arrays (H, W, 3), got {type(item).__name__} "
        f"at place {place}"
    )


def _in_bytes(given: NDArray[Any] | torch.Tensor, name: str) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8 of uint8, of integers from 0 to 255, or of floats from 0 to 1."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    frames: NDArray[Any] = given
    if frames.ndim == 4 and frames.shape[-1] != 3 and frames.shape[1] == 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise VideoError(name, f"an array of shape {given.shape}", "Frames are (T, H, W, 3) or (T, 3, H, W), in RGB.")
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind not in "iuf":
        raise VideoError(name, f"an array of {frames.dtype}", "Give uint8, or floats from 0 to 1.")
    low, high = float(frames.min()), float(frames.max())
    most = 1.0 if frames.dtype.kind == "f" else 255.0
    if not (low >= 0 and high <= most):
        raise VideoError(
            name,
            f"{frames.dtype} values from {low:g} to {high:g}",
            "Give uint8, integers to 255 or floats from 0 to 1.",
        )
    return np.rint(frames * (255.0 / most)).astype(np.uint8)
