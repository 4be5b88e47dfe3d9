"""What the blocks of a GIF say about its frames, without painting one (GIF89a specification)."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_TRAILER, _EXTENSION, _IMAGE, _CONTROL = 0x3B, 0x21, 0x2C, 0xF9
_HUNDREDTH = 0.01  # second


@dataclass(frozen=True)
class GifBlocks:
    """The frames of a GIF whose data is there.

    Attributes:
        delays: seconds that each is shown; None where the file does not say, or says 0.
        whole: whether the file ends where a block does.
        height: of the picture that all frames are painted on, in pixels.
        width: of that picture, in pixels.
    """

    delays: list[float | None]
    whole: bool
    height: int
    width: int

    @classmethod
    def of(cls, path: Path) -> GifBlocks:
        """Reads the blocks of a file.

        Raises:
            struct.error: when it is shorter than a header.
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
                return cls(delays, False, height, width)
            return cls(delays, True, height, width)


def _table(flags: int) -> int:
    """Bytes of the colour table that a descriptor's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind(data: mmap.mmap, place: int) -> int:
    """The place behind the sub-blocks that begin at ``place``; IndexError where they do not end."""
    while length := data[place]:
        place += length + 1
    return place + 1
