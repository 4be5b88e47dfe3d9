"""Decoding the sampled frames of a film, and only what they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
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


class CannotEnter(Exception):
    """Decoding cannot begin in the middle of this film."""


class Converter:
    """Decoded frames to upright RGB, all of one size, (H, W, 3) uint8."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.stored: tuple[int, int] | None = None  # height and width before turning
        self.reformatter = VideoReformatter()  # of all frames: setting one up takes longer than using it
        self.corrupt = 0

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """One frame of PyAV; the first one decides about the size."""
        if self.stored is None:
            self.stored = fitted(frame.height, frame.width, self.size)
        height, width = self.stored  # a stream that changes its size midway keeps that of its first frame
        interpolation = None if (frame.height, frame.width) == self.stored else "BICUBIC"
        picture = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation)
        rgb: NDArray[Any] = picture.to_ndarray()
        matrix = frame.side_data.get("DISPLAYMATRIX")
        self.corrupt += bool(frame.is_corrupt)
        return upright(rgb, bytes(matrix) if matrix is not None else None)


class _Kept:
    """The frames that are kept, converted one by one into one array of the final size."""

    def __init__(self, count: int, size: int | None) -> None:
        self.count = count
        self.convert = Converter(size)
        self.frames: NDArray[np.uint8] | None = None
        self.times: dict[int, int | None] = {}

    def put(self, slot: int, frame: Any) -> None:
        rgb = self.convert(frame)
        if self.frames is None:
            self.frames = np.empty((self.count, *rgb.shape), dtype=np.uint8)
        self.frames[slot] = rgb
        self.times[slot] = frame.pts

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
            with suppress(CannotEnter):
                for slot, frame in frames_by_time(reader, contents, contents.times, indexes):
                    kept.put(slot, frame)
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
    warning = damage(contents, length, errors, kept.convert.corrupt)
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


def frames_by_time(
    reader: Reader, contents: Contents, times: NDArray[np.int64], indexes: NDArray[np.int64], stand_in: bool = False
) -> Iterator[tuple[int, Any]]:
    """The frames at ``indexes``, known by their display times; decodes nothing between that they do not need.

    Args:
        stand_in: where a picture does not come out (damage, or it is not meant to be shown), the next one that is
            displayed before the next wanted one takes its place.

    Yields:
        (slot, frame) with slots 0..T-1 ascending in display order; without those of frames that did not come out.

    Raises:
        CannotEnter: when decoding cannot begin in the middle of this film.
    """
    shown = np.flatnonzero(~contents.hidden)
    positions = shown[np.argsort(times[shown], kind="stable")][indexes]
    wanted = times[positions].tolist()
    slots = {time: slot for slot, time in enumerate(wanted)}
    starts = iter(_decoding_starts(np.flatnonzero(contents.starts), times, positions))
    start = next(starts, None)
    begun = settled = 0  # wanted frames whose decoding has begun; those of them that have come out, or will not
    skipped = False
    entry: int | None = None  # display time of the picture at which decoding began again, until it comes out

    leaves_exist = reader.stream.codec_context.name in WITH_LEAVES
    for position, packet in enumerate(chain(reader.packets(), [None])):
        while start == position:
            begun += 1
            start = next(starts, None)
        if begun <= settled:
            if start is None:
                return
            skipped = True
            continue
        if skipped:
            reader.stream.codec_context.flush_buffers()
            skipped, entry = False, int(times[position])
        if leaves_exist:
            # Pictures that no other one is made from are decoded only where they are wanted themselves.
            needed = packet is None or packet.pts in slots
            reader.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in reader.decode(packet):
            if entry is not None and frame.pts is not None and frame.pts >= entry:
                # With gradual refresh a "keyframe" is one of many predicted pictures that only together are whole.
                if frame.pts > entry or frame.pict_type in PREDICTED:
                    raise CannotEnter
                entry = None
            if not stand_in:
                if frame.pts in slots:
                    settled += 1
                    yield slots.pop(frame.pts), frame
                continue
            passed = settled
            while frame.pts is not None and passed < len(wanted) and wanted[passed] <= frame.pts:
                passed += 1
            if passed > settled:
                settled = passed
                yield passed - 1, frame


def _decoding_starts(keys: NDArray[np.int64], times: NDArray[np.int64], positions: NDArray[np.int64]) -> list[int]:
    """For the frame of each packet in ``positions``, the packet from which the decoder must run; ascending.

    That is the last keyframe stored before it that is also displayed before it: pictures stored after a keyframe but
    displayed before it may lean on the group of pictures before.
    """
    if not len(keys):
        return [0] * len(positions)
    last = np.searchsorted(keys, positions, side="right") - 1
    while (late := (last >= 0) & (times[keys[last]] > times[positions])).any():
        last[late] -= 1
    return sorted(np.where(last >= 0, keys[last], 0).tolist())


def damage(contents: Contents, length: float, errors: int, corrupt: int) -> str | None:
    """What is wrong with a film: ``errors`` packets failed, ``corrupt`` sampled frames came out broken."""
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
