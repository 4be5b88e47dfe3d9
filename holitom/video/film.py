"""Decoding the sampled frames of a film, and only what they need."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from holitom.video.clip import Clip
from holitom.video.container import REPAIR, Contents, Reader, scan
from holitom.video.errors import VideoError
from holitom.video.orientation import fitted, upright
from holitom.video.sampling import SamplingRule, sample_indexes

PREDICTED = (PictureType.P, PictureType.B)
# Codecs whose unreferenced pictures are safe to leave out. (In HEVC "unreferenced" holds within a temporal layer only.)
WITH_LEAVES = {"h264", "mpeg4", "mpeg1video", "mpeg2video"}
SHORT_BY = 0.05  # a film may end this part (and a second) before its announced length without being called cut off


class _Kept:
    """The frames that are kept, converted one by one into one array of the final size."""

    def __init__(self, count: int, size: int | None) -> None:
        self.count = count
        self.size = size
        self.frames: NDArray[np.uint8] | None = None
        self.stored = (0, 0)  # height and width before turning
        self.times: dict[int, int | None] = {}
        self.corrupt = 0

    def put(self, slot: int, frame: Any) -> None:
        if self.frames is None:
            self.stored = fitted(frame.height, frame.width, self.size)
        height, width = self.stored  # a stream that changes its size midway keeps that of its first frame
        resized = {} if (frame.height, frame.width) == self.stored else {"interpolation": "BICUBIC"}
        rgb = frame.to_ndarray(format="rgb24", height=height, width=width, **resized)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        rgb = upright(rgb, bytes(matrix) if matrix is not None else None)
        if self.frames is None:
            self.frames = np.empty((self.count, *rgb.shape), dtype=np.uint8)
        self.frames[slot] = rgb
        self.times[slot] = frame.pts
        self.corrupt += bool(frame.is_corrupt)

    @property
    def complete(self) -> bool:
        return len(self.times) == self.count


def read_film(path: Path, source: str, frames: int, rule: SamplingRule = "floor", size: int | None = None) -> Clip:
    """Sample a video file, see :func:`holitom.video.read_video`.

    One pass reads the packets without decoding and so knows every frame's place and time; a second one decodes the
    groups of pictures that hold a wanted frame. Where packets turn out not to match frames, the frames are counted by
    decoding them all.
    """
    contents = scan(path, source)
    if not contents.shown:
        raise VideoError(source, "the video stream holds no frames", f"The recording may be empty. {REPAIR}")
    total = contents.shown
    indexes = sample_indexes(total, frames, rule)
    kept = _Kept(len(indexes), size)
    errors = 0
    if contents.times is not None:
        with Reader(path, source) as reader:
            _collect_by_time(reader, contents, contents.times, indexes, kept)
            errors = reader.errors
    if not kept.complete:
        # Packets do not always make frames (damage, invisible reference pictures). Then the frames themselves are
        # counted, so that the sample is spread over those that exist.
        kept, counted, errors = _collect_by_order(path, source, indexes, size)
        if counted == 0:
            raise VideoError(source, "not one frame of it could be decoded", f"The file is damaged. {REPAIR}")
        if counted != total:
            total = counted
            indexes = sample_indexes(total, frames, rule)
            kept, _, errors = _collect_by_order(path, source, indexes, size)
    if kept.frames is None or not kept.complete:
        raise VideoError(source, "decodes differently each time it is read", f"The file is damaged. {REPAIR}")

    length = (contents.end - contents.origin) * contents.tick
    fps = contents.fps or (total / length if length > 0 else 1.0)
    stamps = [kept.times[slot] for slot in range(len(indexes))]
    timed = contents.times is not None and None not in stamps
    times = (np.array(stamps, dtype=np.float64) - contents.origin) * contents.tick if timed else indexes / fps
    warning = _damage(contents, length, errors, kept.corrupt)
    return Clip(kept.frames, indexes, times, fps, total, length if length > 0 else total / fps, source, warning)


def _collect_by_order(path: Path, source: str, indexes: NDArray[np.int64], size: int | None) -> tuple[_Kept, int, int]:
    """Decode everything; the frames at ``indexes``, the number of frames, and of packets that failed."""
    kept = _Kept(len(indexes), size)
    slots = {int(index): slot for slot, index in enumerate(indexes)}
    count = 0
    with Reader(path, source) as reader:
        for order, frame in enumerate(reader.frames()):
            count = order + 1
            if order in slots:
                kept.put(slots[order], frame)
        return kept, count, reader.errors


def _collect_by_time(
    reader: Reader, contents: Contents, times: NDArray[np.int64], indexes: NDArray[np.int64], kept: _Kept
) -> None:
    """Keep the frames at ``indexes``, known by their display times; decode nothing between that they do not need.

    Leaves ``kept`` incomplete where a frame does not come out, or where decoding cannot begin in the middle.
    """
    shown = np.flatnonzero(~contents.hidden)
    positions = shown[np.argsort(times[shown], kind="stable")][indexes]
    slots = {int(time): slot for slot, time in enumerate(times[positions])}
    starts = iter(_decoding_starts(np.flatnonzero(contents.starts), times, positions))
    start = next(starts, None)
    missing = 0  # wanted frames whose decoding has begun but that have not come out
    skipped = False
    entry: int | None = None  # display time of the picture at which decoding began again, until it comes out

    leaves_exist = reader.stream.codec_context.name in WITH_LEAVES
    for position, packet in enumerate(chain(reader.packets(), [None])):
        while start == position:
            missing += 1
            start = next(starts, None)
        if missing == 0:
            if start is None:
                return
            skipped = True
            continue
        if skipped:
            reader.stream.codec_context.flush_buffers()
            skipped, entry = False, int(times[position])
        if leaves_exist:
            # Pictures that no other one is made from are decoded only where they are wanted themselves.
            wanted = packet is None or packet.pts in slots
            reader.stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
        for frame in reader.decode(packet):
            if entry is not None and frame.pts is not None and frame.pts >= entry:
                # With gradual refresh a "keyframe" is one of many predicted pictures that only together are whole.
                if frame.pts > entry or frame.pict_type in PREDICTED:
                    return
                entry = None
            if frame.pts in slots:
                kept.put(slots.pop(frame.pts), frame)
                missing -= 1


def _decoding_starts(keys: NDArray[np.int64], times: NDArray[np.int64], positions: NDArray[np.int64]) -> list[int]:
    """For the frame of each packet in ``positions``, the packet from which the decoder must run; ascending.

    That is the last keyframe stored before it that is also displayed before it: pictures stored after a keyframe but
    displayed before it may lean on the group of pictures before.
    """
    found = []
    for position in positions:
        usable = keys[(keys <= position) & (times[keys] <= times[position])]
        found.append(int(usable[-1]) if len(usable) else 0)
    return sorted(found)


def _damage(contents: Contents, length: float, errors: int, corrupt: int) -> str | None:
    found = []
    packets = len(contents.starts)
    if contents.announced_frames > packets:
        found.append(f"cut off: its header announces {contents.announced_frames} frames and {packets} are there")
    elif contents.times is not None and length < contents.announced_seconds * (1 - SHORT_BY) - 1:
        found.append(f"cut off: its header announces {contents.announced_seconds:.1f} s and {length:.1f} s are there")
    if errors or contents.errors:
        found.append(f"damaged: {max(errors, contents.errors)} of {packets} packets could not be read")
    elif corrupt:
        found.append(f"damaged: {corrupt} of the sampled frames are incomplete")
    return "; ".join(found) or None
