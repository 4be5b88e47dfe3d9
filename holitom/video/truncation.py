"""Whether a file ends before its own headers say that it does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska and WebM


def missing_bytes(path: Path) -> tuple[int, int] | None:
    """(bytes that its headers announce, bytes that are there) of an AVI, Matroska or MP4 file that is cut off.

    None where nothing is missing, and for formats whose headers do not say how long they are.
    """
    there = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while place < there:
            file.seek(place)
            length = _length(file)
            if length is None:
                return None
            place += length
    return (place, there) if place > there else None


def _length(file: BinaryIO) -> int | None:
    """Bytes of the part at this place, its header included; None where that is not known."""
    head = file.read(16)
    if len(head) < 8:
        return None
    if head[:4] == b"RIFF":
        size = int(struct.unpack("<I", head[4:8])[0])
        return 8 + size if size else None
    if head[:4] in (_EBML, _SEGMENT):
        width = 9 - head[4].bit_length()  # the number of leading zeros says how many bytes a size has
        size = int.from_bytes(head[4 : 4 + width], "big") - (1 << 7 * width)
        unknown = size == (1 << 7 * width) - 1 or width > 8
        return None if unknown else 4 + width + size
    size, kind = struct.unpack(">I4s", head[:8])
    if size == 1 and len(head) == 16:
        size = int.from_bytes(head[8:], "big")
    return size if kind in _BOXES and size >= 8 else None
