"""Readers for worker processes, which import this file and nothing heavier."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from holitom.corpus.reading import Video
from holitom.corpus.sources import Item
from holitom.demo.reading import UploadReader


class Ready:
    """Needs nothing."""

    def load(self) -> None:
        pass


@dataclass(frozen=True)
class Crashing(Ready):
    """Some videos take their process down, one sleeps, one cannot be read, the others come back."""

    marks: str

    def read(self, item: Item) -> Video:
        if item.path.startswith("dies"):
            os._exit(11)
        if item.path.startswith("once") and not os.path.exists(self.marks + item.path):
            Path(self.marks + item.path).touch()
            os._exit(9)
        if item.path.startswith("sleeps"):
            time.sleep(60)
        if item.path.startswith("bad"):
            raise ValueError("cannot be read")
        return Video(item.path, {"pid": os.getpid()})


@dataclass(frozen=True)
class Counting(Ready):
    """Leaves a file for each video that was read."""

    folder: str

    def read(self, item: Item) -> Video:
        Path(self.folder, item.path).touch()
        return Video(item.path, None)


@dataclass(frozen=True)
class Telling(Ready):
    """Tells with how many threads the process works, and how nice it is."""

    def load(self) -> None:
        import torch  # noqa: F401

    def read(self, item: Item) -> Video:
        import torch

        from holitom.video.container import decoder_threads

        told = {"torch": torch.get_num_threads(), "decoder": decoder_threads.get(), "nice": os.nice(0)}
        return Video(item.path, told)


@dataclass(frozen=True)
class Large(Ready):
    """Gives arrays that no pipe takes at once."""

    def read(self, item: Item) -> Video:
        import numpy as np

        frames = np.arange(30_000_000, dtype=np.uint8).reshape(100, -1)
        return Video(item.path, {"frames": frames, "empty": np.zeros((0, 3))})


@dataclass(frozen=True)
class Stopping:
    """Is stopped, as by Ctrl-Z or a hung disk, in the middle of sending a video."""

    def load(self) -> None:
        from holitom.corpus.channel import SIZE, Channel

        send = Channel.send

        def send_half(channel: Channel, content: object, seconds: float | None = None) -> None:
            if getattr(content, "path", None) == "stops":
                channel.line.sendall(SIZE.pack(1) + SIZE.pack(1000) + b"half of it")
                os.kill(os.getpid(), signal.SIGSTOP)
            send(channel, content, seconds)

        Channel.send = send_half  # type: ignore[method-assign]

    def read(self, item: Item) -> Video:
        return Video(item.path, None)


@dataclass(frozen=True)
class Loading:
    """Takes its time before the first video."""

    seconds: float

    def load(self) -> None:
        time.sleep(self.seconds)

    def read(self, item: Item) -> Video:
        return Video(item.path, None)


@dataclass(frozen=True)
class Unloadable:
    """Cannot load what it needs."""

    def load(self) -> None:
        raise OSError("there is no model here")

    def read(self, item: Item) -> Video:
        raise AssertionError("was asked to read")


@dataclass(frozen=True)
class Leaving(Ready):
    """Leaves a temporary file with each video, and dies or sleeps over some."""

    def read(self, item: Item) -> Video:
        handle, _ = tempfile.mkstemp()
        os.close(handle)
        if item.path == "dies":
            os._exit(11)
        if item.path == "sleeps":
            time.sleep(60)
        if item.path == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        return Video(item.path, {"pid": os.getpid()})


@dataclass(frozen=True)
class Dawdling(UploadReader):
    """Reads uploads as the demo does, but some of them for ten minutes."""

    def read(self, item: Item) -> Video:
        if item.path.startswith("slow"):
            time.sleep(600)
        return super().read(item)
