"""What the packets of a film say about its frames, before any is decoded."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from holitom.video.container import Reader

UNKNOWN = int(np.iinfo(np.int64).min)  # a time that the file does not give
JUMP_BACK, JUMP_AHEAD = 0.1, 10.0  # seconds by which the clock of a joined recording jumps, as in the ffmpeg command
LONGEST = 2**52  # ticks from the first frame to the last; a header that says more lies
# Formats that give every frame's display time beside its decoding time
TIMED = {"flv", "matroska", "mov", "mpeg", "mpegts", "webm"}
USUAL_RATE = 25.0  # frames per second of a film that says nothing, as in FFmpeg
SHORT_BY = 0.05  # a film may end this part (and a second) before its announced length without being called cut off
_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska and WebM


@dataclass(frozen=True, eq=False)
class Contents:
    """The packets of a film. P packets in file order.

    Attributes:
        times: (P,) int64, display time of each in ``tick`` units on one clock, also where recordings were joined; None
            where the file does not give them all. A claim of the file.
        distinct: whether no two of them are equal, as those of the two fields of a picture are.
        lengths: (P,) int64, how long each is displayed, in ``tick`` units.
        starts: (P,) bool, whether decoding can begin at it.
        hidden: (P,) bool, not displayed: cut away by an edit list, or undecodable before the first keyframe.
        tick: seconds per time unit.
        fps: frames per second as the header says; None where it does not.
        reordered: whether times come from the container itself and tell that pictures are stored in another order than
            they are shown. Then unreferenced pictures can be left out.
        cut: how much is missing at the end, in words; None where nothing is.
        errors: places at which the file could not be read.
    """

    times: NDArray[np.int64] | None
    distinct: bool
    lengths: NDArray[np.int64]
    starts: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    tick: float
    fps: float | None
    reordered: bool
    cut: str | None
    errors: int

    @property
    def shown(self) -> NDArray[np.int64]:
        """(N,) the packets whose frame is displayed, in the order of display as far as it is known."""
        shown = np.flatnonzero(~self.hidden)
        return shown if self.times is None else shown[np.argsort(self.times[shown], kind="stable")]

    def clock(self, packets: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
        """When the frames made of ``packets`` begin, in seconds from the first one, and when the last one ends.

        The decoder's order is right where it disagrees with the packets' times. Then those are the times, put in order;
        frames of one time follow each other before the next.
        """
        if self.times is not None and self.tick and (packets >= 0).all():
            times, counts = np.unique(self.times[packets], return_counts=True)
            last = packets[np.argmax(self.times[packets])]
            end = int(self.times[last] + self.lengths[last])
            if 2 * len(times) >= len(packets):
                gaps = np.diff(times, append=end)
                lengths = np.minimum(gaps / counts, np.median(gaps))
                nth = np.arange(len(packets)) - np.repeat(np.cumsum(counts) - counts, counts)
                begins: NDArray[np.float64] = np.repeat(times - times[0], counts) + nth * np.repeat(lengths, counts)
                return begins * self.tick, (end - int(times[0])) * self.tick
        rate = self.fps or USUAL_RATE
        return np.arange(len(packets)) / rate, len(packets) / rate

    def without(self, head: NDArray[np.int64]) -> Contents:
        """The same with some more packets hidden."""
        hidden = self.hidden.copy()
        hidden[head] = True
        return replace(self, hidden=hidden)


def scan(path: Path, source: str, playlists: bool = False) -> Contents:
    """Read every packet once without decoding: exact counts also where the container has none (Matroska, MPEG-TS)."""
    shows, decodes, lengths = array("q"), array("q"), array("q")
    starts, hidden = array("b"), array("b")
    with Reader(path, source, playlists=playlists) as reader:
        stream = reader.stream
        vp8 = stream.codec_context.name in {"vp8", "libvpx"}
        for packet in reader.packets():
            pts, dts = packet.pts, packet.dts
            shows.append(UNKNOWN if pts is None else pts)
            decodes.append(UNKNOWN if dts is None else dts)
            lengths.append(packet.duration or 0)
            starts.append(packet.is_keyframe)
            # VP8 has pictures that are only referred to; the fifth bit of a picture says whether it is one
            hidden.append(packet.is_discard or (vp8 and not memoryview(packet)[0] & 16))
        rate = stream.average_rate or stream.guessed_rate
        tick = float(stream.time_base or 0.0)
        fps = float(rate) if rate else None
        formats = set(reader.container.format.name.split(","))
        jumps = bool(reader.container.format.flags & av.format.Flags.ts_discont.value)
        length, announced = reader.container.duration, 0.0
        # the container's own length may be that of a longer sound track, so it speaks for a lone stream only
        if formats & {"flv", "asf"} and length is not None and len(reader.container.streams) == 1:
            announced = float(length / av.time_base)
        errors = reader.errors

    keys = np.frombuffer(starts, dtype=np.int8).astype(bool)
    unseen = np.frombuffer(hidden, dtype=np.int8).astype(bool)
    if keys.any():
        unseen[: int(np.argmax(keys))] = True
    pts, durations = np.frombuffer(shows, dtype=np.int64), np.frombuffer(lengths, dtype=np.int64).copy()
    usual = round(1 / (fps * tick)) if fps and tick else 1
    durations[(durations <= 0) | (durations > LONGEST)] = max(1, usual)
    times = None
    if len(pts) and (pts != UNKNOWN).all():
        dts = np.frombuffer(decodes, dtype=np.int64)
        times = _on_one_clock(pts, dts, durations, keys, unseen, tick, jumps)
    distinct = times is not None and len(np.unique(times)) == len(times)
    reordered = times is not None and bool(formats & TIMED) and bool((np.diff(times) < 0).any())
    cut = _cut(path, times, durations, tick, announced)
    return Contents(times, distinct, durations, keys, unseen, tick, fps, reordered, cut, errors)


def _on_one_clock(
    pts: NDArray[np.int64],
    dts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    keys: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    tick: float,
    jumps: bool,
) -> NDArray[np.int64] | None:
    """Display times of which none goes back where recordings were joined: each part begins where the one before ends.

    A new part begins where decoding times, which otherwise ascend, go back, and in formats whose clocks may jump
    (``jumps``) also where they go far ahead. None for times too far apart to be true.
    """
    if float(pts.max()) - float(pts.min()) > LONGEST:
        return None
    known = dts != UNKNOWN
    if not known.any():
        dts, known = pts, keys
    clock = dts[np.maximum.accumulate(np.where(known, np.arange(len(dts)), int(np.argmax(known))))]
    steps = np.diff(clock)
    breaks = (steps < 0) & (keys[1:] | (steps * tick < -JUMP_BACK))
    if jumps:
        breaks |= steps * tick > JUMP_AHEAD
    if not breaks.any() or hidden.all():
        return pts
    part = np.concatenate([[0], np.cumsum(breaks)])
    shown = np.flatnonzero(~hidden)
    shown = shown[np.lexsort((pts[shown], part[shown]))]  # part by part, each in the order of display
    spans, begins = np.zeros(part[-1] + 1, np.int64), np.zeros(part[-1] + 1, np.int64)
    edges = np.flatnonzero(np.diff(part[shown]))
    first, last = shown[np.concatenate([[0], edges + 1])], shown[np.append(edges, len(shown) - 1)]
    begins[part[first]] = pts[first]  # 0 for parts of which nothing is shown
    spans[part[first]] = pts[last] + lengths[last] - pts[first]
    moved: NDArray[np.int64] = pts + (begins[0] + np.cumsum(spans) - spans - begins)[part]
    return moved


def _cut(
    path: Path, times: NDArray[np.int64] | None, lengths: NDArray[np.int64], tick: float, announced: float
) -> str | None:
    if missing := _missing_bytes(path):
        return f"cut off: its header announces {missing[0]:,} bytes and {missing[1]:,} are there"
    if times is None:
        return None
    last = int(np.argmax(times))
    there = float(times[last] + lengths[last] - times.min()) * tick
    if there < announced * (1 - SHORT_BY) - 1:
        return f"cut off: its header announces {announced:.1f} s and {there:.1f} s are there"
    return None


def _missing_bytes(path: Path) -> tuple[int, int] | None:
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
