"""Reading and decoding the packets of a video file, with FFmpeg's errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from PIL import Image

from holitom.video.errors import VideoError
from holitom.video.formats import is_jpeg_stream, is_playlist, openings
from holitom.video.limits import require_frame

REPAIR = "Copy or download it again, or save what is left with `ffmpeg -i FILE -c copy repaired.mkv`."
# What to do with titles that are no UTF-8; PyAV 19 no longer asks
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
TEXT_FORMATS = {"tty"}  # FFmpeg draws text files as terminal screens
# Codecs of which FFmpeg fills in what cannot be decoded. Of others it would show whatever was in memory there.
CONCEALED = {"flv", "h263", "h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2"}
# Codecs of which errors show, or damage looks the same, in any number of threads of this kind; and those whose frames
# do not depend on each other
THREADED = dict.fromkeys(["h264", "hevc", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4"], "AUTO") | {"vp9": "SLICE"}
REORDERED, AUTOMATIC_THREADS = 16, 16  # frames that a decoder holds back at most: for their order, and in its threads
decoder_threads: ContextVar[int] = ContextVar("decoder_threads", default=0)
"""Threads that FFmpeg decodes a video with; 0: as many as it finds right. More are faster and take more work in all."""


class Damaged(Exception):
    """A strict reader has met something that does not decode."""


class Reader:
    """One pass over the video packets of a file.

    Args:
        path: the file.
        source: its name in messages.
        playlists: whether a playlist may be opened, and so what it names.
        strict: raise :class:`Damaged` where something does not decode, instead of going on. What FFmpeg makes of damage
            depends on how many threads decode, so a lenient reader decodes in one.

    Attributes:
        errors: packets that could not be read or decoded so far.
        delay: packets of which the decoder may hold the frames back.
    """

    def __init__(self, path: Path, source: str, *, playlists: bool = False, strict: bool = False) -> None:
        self.source = source
        self.strict = strict
        self.errors = 0
        self.container = _open(path, source, playlists)
        try:
            self.stream = _video_stream(self.container, source)
        except BaseException:
            self.container.close()
            raise
        codec = self.stream.codec_context
        self.stream.thread_type = THREADED.get(codec.name, "AUTO")
        threaded = strict and (codec.name in THREADED or codec.codec.intra_only)
        codec.thread_count = decoder_threads.get() if threaded else 1
        self.delay = REORDERED + max(AUTOMATIC_THREADS, codec.thread_count)
        options = {"err_detect": "explode"} if strict or codec.name not in CONCEALED else {}
        if Image.MAX_IMAGE_PIXELS is not None:
            options["max_pixels"] = str(Image.MAX_IMAGE_PIXELS)
        codec.options = options

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
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

    def decode(self, position: int, packet: Any | None) -> list[Any]:
        """The frames that this packet completes, in the decoder's order, which is that of display.

        Args:
            position: the packet's place in the file. It is ``pts`` of the frame that is made of it, because what
                files say about display times may be wrong, missing, or not unique.
            packet: ``None`` asks for the frames that are still inside the decoder.

        Raises:
            Damaged: by a strict reader, for a packet that cannot be decoded.
        """
        if packet is not None:
            packet.pts = packet.dts = position
        try:
            return self.stream.codec_context.decode(packet)  # type: ignore[no-any-return]
        except av.FFmpegError as error:
            if isinstance(error, av.error.EOFError):
                return []
            if self.strict:
                raise Damaged from error
            self.errors += 1
            return []

    def frames(self) -> Iterator[Any]:
        """Every frame that can be decoded, in display order.

        Raises:
            Damaged: by a strict reader, where one is incomplete.
        """
        for position, packet in enumerate(self.packets()):
            yield from self._whole(self.decode(position, packet))
        yield from self._whole(self.decode(-1, None))

    def _whole(self, frames: list[Any]) -> list[Any]:
        if self.strict and any(frame.is_corrupt for frame in frames):
            raise Damaged
        return frames


def _open(path: Path, source: str, playlists: bool) -> Any:
    try:
        # A name such as "film.jpg" speaks for a picture.
        kind = "mjpeg" if is_jpeg_stream(path) else None
        # "file:" keeps FFmpeg from reading protocols or patterns into a name such as "concat:x" or "shot%d.png".
        container = av.open(f"file:{path}", format=kind, options=openings(playlists), **_LENIENT)
    except PermissionError as error:  # FFmpeg's is one, too
        raise VideoError(source, "permission denied", "Make the file readable for this user.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if is_playlist(path) and not playlists:
            raise VideoError(
                source,
                "a playlist, not a video: it names other files, which are not opened",
                "Give the video itself, or playlists=True where you trust every file and address that it names.",
            ) from error
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
    require_frame(source, stream.codec_context.width * stream.codec_context.height)
    return stream
