"""What a video can be given as: a path, an address, bytes, an open file, arrays or pictures."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holitom.video.errors import VideoError
from holitom.video.remote import LIMITS, FetchLimits, fetched

if TYPE_CHECKING:
    import torch

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any] | torch.Tensor | Sequence[str | os.PathLike[str] | Any]"
)
TAKEN = (
    "a path, an address (file, http, https, or one that fsspec knows), the bytes of a file, an open binary file, "
    "frames as an array or tensor (T, H, W, 3) or (T, 3, H, W), or a list of PIL images, paths of images or "
    "arrays (H, W, 3)"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(data):[^,]*,")
_LONGEST_NAME = 300  # characters of a name in messages
_PART = 2**16  # bytes that are read at a time


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


def located(source: Any, limits: FetchLimits = LIMITS) -> Located:
    """Finds a video, and fetches or writes it to a temporary file where it is none.

    Args:
        source: see ``TAKEN``.
        limits: of fetching an address, and of reading an open file.

    Raises:
        VideoError: there is no such video, it is empty, or it cannot be fetched.
        TypeError: the source is of another kind.
    """
    if isinstance(source, (str, os.PathLike)):
        return _named(os.fsdecode(source), limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _copied(io.BytesIO(source).read, "<bytes>", limits)
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"source is a file that is open as text: open it with mode 'rb', or give {TAKEN}")
    if callable(getattr(source, "read", None)):
        return _file(source, limits)
    if isinstance(source, np.ndarray) or _is_tensor(source):
        return Located("<array>", pictures=list(_in_bytes(source, "<array>")))
    if isinstance(source, (list, tuple)):
        if not source:
            raise VideoError("<list>", "an empty list", f"Give {TAKEN}.")
        return Located("<list>", pictures=[_picture(item, place) for place, item in enumerate(source)])
    raise TypeError(f"source must be {TAKEN}, got {type(source).__name__}")


def _named(name: str, limits: FetchLimits) -> Located:
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
    if scheme := _SCHEME.match(name):
        kind = (scheme[1] or scheme[2]).lower()
        if kind == "data":
            raise VideoError("data:...", "a video inside its address", "Decode it, and give the bytes.")
        if kind != "file":
            return _fetched(name, shown, limits)
        address = urlsplit(name)
        if address.netloc not in {"", "localhost"}:
            raise VideoError(shown, f"an address on the machine {address.netloc}", "Give the path of a local file.")
        return Located(shown, _existing(Path(url2pathname(address.path)), shown))
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


def _file(file: Any, limits: FetchLimits) -> Located:
    """An open file from its beginning, whatever has been read of it; its place stays as it was."""
    named = getattr(file, "name", None)
    name = named if isinstance(named, str) else f"<{type(file).__name__}>"
    try:
        place = file.tell()
        file.seek(0)
    except (AttributeError, OSError):  # a pipe or an answer of a server
        return _copied(file.read, name, limits)
    try:
        return _copied(file.read, name, limits)
    finally:
        file.seek(place)


def _fetched(address: str, name: str, limits: FetchLimits) -> Located:
    try:
        fetch = fetched(address, limits)
        return Located(name, fetch.__enter__(), copy=fetch)  # the copy goes when this context is collected
    except VideoError as error:
        raise VideoError(name, error.reason, error.advice) from error


def _copied(read: Callable[[int], bytes], name: str, limits: FetchLimits) -> Located:
    copy = NamedTemporaryFile(prefix="holitom-")  # noqa: SIM115 (it lives as long as what is returned)
    written = 0
    while part := read(_PART):
        if not isinstance(part, bytes):
            raise TypeError(f"{name} gives {type(part).__name__} and no bytes: open it with mode 'rb'")
        written += copy.write(part)
        if written > limits.megabytes * 1e6:
            raise VideoError(name, f"larger than {limits.megabytes:g} MB", "Raise the limit, or give a local file.")
    if not written:
        raise VideoError(name, "holds nothing (0 bytes)", "Check where it comes from.")
    copy.flush()
    return Located(name, Path(copy.name), copy=copy)


def _picture(item: Any, place: int) -> Any:
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, (str, os.PathLike)):
        return _existing(Path(item), os.fsdecode(item))
    if isinstance(item, np.ndarray) or _is_tensor(item):
        return _in_bytes(item[None], f"<list>[{place}]")[0]
    raise TypeError(
        f"a list of pictures holds PIL images, paths of images or arrays (H, W, 3), got {type(item).__name__} "
        f"at place {place}"
    )


def _is_tensor(given: Any) -> TypeGuard[torch.Tensor]:
    """Also where torch is not loaded, which reading does without."""
    return "torch" in sys.modules and isinstance(given, sys.modules["torch"].Tensor)


def _in_bytes(given: NDArray[Any] | torch.Tensor, name: str) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8 of uint8, of integers from 0 to 255, or of floats from 0 to 1."""
    if _is_tensor(given):
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    frames = cast("NDArray[Any]", given)
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
