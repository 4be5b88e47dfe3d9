"""Readers for worker processes, which import this file and nothing heavier."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from holitom.corpus.reading import Video
from holitom.corpus.sources import Item


@dataclass(frozen=True)
class Crashing:
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
class Counting:
    """Leaves a file for each video that was read."""

    folder: str

    def read(self, item: Item) -> Video:
        Path(self.folder, item.path).touch()
        return Video(item.path, None)


@dataclass(frozen=True)
class Telling:
    """Tells with how many threads the process works, and how nice it is."""

    def read(self, item: Item) -> Video:
        import torch

        from holitom.video.container import decoder_threads

        told = {"torch": torch.get_num_threads(), "decoder": decoder_threads.get(), "nice": os.nice(0)}
        return Video(item.path, told)
