"""Reading the packets of a video file, with FFmpeg's errors turned into ours."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from holitom.video.errors import VideoError

REPAIR = "Copy or download it again, or save what is left with `ffmpeg -i FILE -c copy repaired.mkv`."
# What to do with titles that are no UTF-8; PyAV 19 no longer asks
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
TEXT_FORMATS = {"tty"}  # FFmpeg draws text files as terminal screens
decoder_threads: ContextVar[int] = ContextVar("decoder_threads", default=0)
"""Threads that FFmpeg decodes a video with; 0: as many as it finds right. More are faster and take more work in all."""


class Reader:
    """One pass over the video packets of a file. Damaged packets are counted and skipped, not raised."""

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self.errors = 0
        self.container = _open(path, source)
        try:
            self.stream = _video_stream(self.container, source)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    def packets(self) -> Iterator[Any]:
        """The packets that carry data, in file order; ends where the file can no longer be read."""
        while True:
            try:
                yield from (packet for packet in self.container.demux(self.stream) if packet.size)
            except IndexError:
                # A stream that was not there at the start (MPEG-TS allows it): go on after the packet that named it.
                continue
            except av.FFmpegError:
                self.errors += 1
            return

    def decode(self, packet: Any | None) -> list[Any]:
        """The frames that this packet completes; ``None`` asks for those still inside the decoder."""
        try:
            return self.stream.codec_context.decode(packet)  # type: ignore[no-any-return]
        except av.FFmpegError as error:
            if not isinstance(error, av.error.EOFError):
                self.errors += 1
            return []

    def frames(self) -> Iterator[Any]:
        """Every frame that can be decoded, in display order."""
        for packet in self.packets():
            yield from self.decode(packet)
        yield from self.decode(None)


@dataclass(frozen=True, eq=False)
class Contents:
    """What the packets of a video say before any is decoded. P packets in file order.

    Attributes:
        times: (P,) int64, display time of each in ``tick`` units; None where the file does not give them all.
        starts: (P,) bool, whether decoding can begin at it.
        hidden: (P,) bool, decoded but not displayed (cut away by an edit list).
        tick: seconds per time unit.
        fps: average frames per second; None where the file does not say.
        end: display time at which the last frame ends, in ``tick`` units.
        announced_frames: frames that the header promises, 0 where it does not.
        announced_seconds: length that the header promises, 0.0 where it does not.
        errors: places at which the file could not be read.
    """

    times: NDArray[np.int64] | None
    starts: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    tick: float
    fps: float | None
    end: int
    announced_frames: int
    announced_seconds: float
    errors: int

    @property
    def shown(self) -> int:
        """Packets whose frame is displayed."""
        return int((~self.hidden).sum())

    @property
    def origin(self) -> int:
        """Display time of the first frame."""
        if self.times is None or not self.shown:
            return 0
        return int(self.times[~self.hidden].min())


def scan(path: Path, source: str) -> Contents:
    """Read every packet once without decoding: exact counts also where the container has none (Matroska, MPEG-TS)."""
    times, starts, hidden = array("q"), array("b"), array("b")
    timed = True
    end = 0
    with Reader(path, source) as reader:
        for packet in reader.packets():
            timed = timed and packet.pts is not None
            if timed:
                times.append(packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
            starts.append(packet.is_keyframe)
            hidden.append(packet.is_discard)
        stream = reader.stream
        rate = stream.average_rate or stream.guessed_rate
        known_times = np.frombuffer(times, dtype=np.int64) if timed and times else None
        # Two packets with one time (fields of one picture) leave no way to tell frames apart by their time.
        if known_times is not None and len(np.unique(known_times)) < len(known_times):
            known_times = None
        return Contents(
            times=known_times,
            starts=np.frombuffer(starts, dtype=np.int8).astype(bool),
            hidden=np.frombuffer(hidden, dtype=np.int8).astype(bool),
            tick=float(stream.time_base or 0.0),
            fps=float(rate) if rate else None,
            end=end,
            announced_frames=stream.frames,
            announced_seconds=_announced_seconds(reader.container, stream),
            errors=reader.errors,
        )


def _open(path: Path, source: str) -> Any:
    try:
        # "file:" keeps FFmpeg from reading protocols or patterns into a name such as "concat:x" or "shot%d.png".
        container = av.open(f"file:{path}", **_LENIENT)
    except av.error.PermissionError as error:
        raise VideoError(source, "permission denied", "Make the file readable for this user.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            source,
            "not a video that FFmpeg can read, or cut off before its index was written",
            f"Check that it plays elsewhere. {REPAIR}",
        ) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise VideoError(source, "a text file, not a video", "Give a video file or a folder of images.")
    return container


def _video_stream(container: Any, source: str) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        if not kinds:
            raise VideoError(source, "holds no streams at all", f"The recording may be empty. {REPAIR}")
        cover = ", and a cover picture is not a video" if container.streams.video else ""
        raise VideoError(
            source, f"holds no video stream, only {' and '.join(kinds)}{cover}", "Give a file with moving pictures."
        )
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(
            source,
            "its video codec is unknown to this build of FFmpeg",
            "Convert it, for example with `ffmpeg -i FILE -c:v libx264 converted.mp4`.",
        )
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = decoder_threads.get()
    return stream


def _announced_seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = str(stream.metadata.get("DURATION", ""))  # Matroska: HH:MM:SS.fraction
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        pass
    # The container's own length may be that of a longer sound track, so it speaks for a lone stream only.
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return 0.0
