"""How the demo reads uploads: in processes that are ended when a clip takes too long."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from pathlib import Path

import av

from holitom.corpus.pool import Worker
from holitom.corpus.reading import Failure, Reader, Video
from holitom.corpus.sources import Item
from holitom.video import Clip, VideoError, read_video
from holitom.video.container import Reader as Container


@dataclass(frozen=True)
class Limits:
    """What one question may ask for.

    Args:
        megabytes: of an upload, in MB.
        seconds: that a film may last.
        pixels: of all frames together that are held while the model is asked.
        reading: seconds until a clip that is not read yet is given up.
        readers: clips that are read at a time.
        question: characters.
        frames: sampled from a clip.
        tokens: of an answer.
    """

    megabytes: float = 64
    seconds: float = 30 * 60
    pixels: int = 64 * 1920 * 1080
    reading: float = 30
    readers: int = 2
    question: int = 500
    frames: int = 64
    tokens: int = 256


@dataclass(frozen=True)
class Upload(Item):
    """An uploaded clip.

    Args:
        frames: to sample.
    """

    frames: int = 1


@dataclass(frozen=True)
class UploadReader:
    """What a reading process does.

    Args:
        limits: of films.
    """

    limits: Limits

    def load(self) -> None:
        """Nothing is needed but what this module imports."""

    def read(self, item: Item) -> Video:
        """The frames of a clip.

        Raises:
            VideoError: when it cannot be read.
            ValueError: when it is beyond the limits.
        """
        assert isinstance(item, Upload)
        self.check(item)
        clip = read_video(item.address, item.frames)
        return Video(item.path, replace(clip, source=item.path), warning=clip.warning)

    def check(self, item: Upload) -> None:
        """Refuses by its header a film that would take too long to decode or too much memory to hold.

        Raises:
            ValueError: says which limit stands against it.
        """
        try:
            with Container(Path(item.address), item.address) as opened:
                stream, container = opened.stream, opened.container
                pixels = item.frames * stream.width * stream.height
                seconds = float(container.duration or 0) / av.time_base
        except VideoError:
            return  # no film: read_video says what it is, or what is wrong with it
        if pixels > self.limits.pixels:
            raise ValueError(
                f"{item.frames} frames of {stream.width} x {stream.height} pixels are more than this demo holds: "
                "ask for fewer frames, or lower the video's resolution"
            )
        if seconds > self.limits.seconds:
            raise ValueError(
                f"the video lasts {seconds / 60:.0f} minutes; at most {self.limits.seconds / 60:.0f} are taken: cut it"
            )


class ClipReader:
    """Reads uploads, several at a time, so that one that takes long holds up no other.

    Args:
        limits: of films, and of reading.
        reader: what its processes do; None: :class:`UploadReader`.
    """

    def __init__(self, limits: Limits, reader: Reader | None = None) -> None:
        self.limits = limits
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._workers = [Worker(reader or UploadReader(limits), limits.reading) for _ in range(limits.readers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(limits.readers, "holitom demo")  # workers end with their threads
        for _ in self._workers:
            self._threads.submit(self._start)

    def read(self, path: Path, frames: int) -> Iterator[Clip | None]:
        """None every second while the clip waits or is read; then the clip.

        Raises:
            ValueError: when it cannot be read, or takes too long; names the file without its folder.
        """
        coming: Future[Video | Failure] = self._threads.submit(self._read, Upload(path.name, str(path), frames))
        try:
            while True:
                try:
                    found = coming.result(1.0)
                    break
                except NotYet:
                    yield None
        finally:
            coming.cancel()  # where it still waits for a reader, and nobody for it
        if isinstance(found, Failure):
            bare = found.error.startswith(("it ", "the worker "))
            raise ValueError(f"{path.name}: {found.error}" if bare else found.error)
        yield found.content

    def close(self) -> None:
        """Ends the reading processes."""
        for worker in self._workers:
            worker.end()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        worker = self._idle.get()
        try:
            worker.start()
        finally:
            self._idle.put(worker)

    def _read(self, upload: Upload) -> Video | Failure:
        worker = self._idle.get()
        try:
            return worker.read(upload)
        finally:
            self._idle.put(worker)
