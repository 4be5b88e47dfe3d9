"""A video's encoded frames, collected until a window is complete."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from holitom.methods.base import Method
from holitom.methods.segmenting import Segmenting
from holitom.ops.streaming import SegmentStream
from holitom.tokens import VideoTokens

Complete = tuple[VideoTokens, int]
"""A window's tokens, and how many of them merging over time makes redundant."""


class Windows:
    """Collects frames and gives windows of them. Holds at most W + 1 frames and those just put in.

    A method that looks for static positions gets windows that end where few of them go on (see
    :mod:`holitom.ops.streaming`); any other method gets windows of W frames.

    Args:
        method: whose links say where windows may end.
        frames: W.
    """

    def __init__(self, method: Method, frames: int) -> None:
        self.frames = frames
        before = method.stage("before")
        self.segmenting = before if isinstance(before, Segmenting) else None
        self.stream: SegmentStream | None = self.segmenting.stream(frames) if self.segmenting else None
        self._held: list[VideoTokens] = []
        self._count = 0
        self._last: Tensor | None = None  # (1, N, D): the newest frame

    @property
    def shortest(self) -> int:
        """The fewest frames of a window that is not the last."""
        return self.frames if self.stream is None else self.stream.shortest

    def push(self, video: VideoTokens) -> Iterator[Complete]:
        """Takes the next frames and gives the windows that are complete, none of which is the last."""
        self._held.append(video)
        self._count += video.frames
        if self.stream is None or self.segmenting is None:
            while self._count > self.frames:
                yield self._take(self.frames), 0
            return
        known = video.features if self._last is None else torch.cat([self._last, video.features])
        self._last = video.features[-1:]
        for window in self.stream.push(self.segmenting.links(known)):
            yield self._take(window.frames), window.cut.redundant

    def finish(self) -> Complete:
        """The last window.

        Raises:
            ValueError: when there was no frame at all.
        """
        if not self._held:
            raise ValueError("a video has at least one frame: push it before finish()")
        redundant = 0 if self.stream is None else sum(window.cut.redundant for window in self.stream.finish())
        return self._take(self._count), redundant

    def _take(self, frames: int) -> VideoTokens:
        """The first frames that are held, which are then held no more."""
        whole = _join(self._held)
        self._count -= frames
        self._held = [_frames(whole, frames, whole.frames)] if self._count else []
        return _frames(whole, 0, frames)


def _join(parts: list[VideoTokens]) -> VideoTokens:
    first = parts[0]
    if len(parts) == 1:
        return first

    def cat(values: list[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if known else None

    return VideoTokens(
        torch.cat([part.features for part in parts]),
        first.grid,
        scores=cat([part.scores for part in parts]),
        keys=cat([part.keys for part in parts]),
        frame_embeddings=cat([part.frame_embeddings for part in parts]),
    )


def _frames(video: VideoTokens, start: int, stop: int) -> VideoTokens:
    """The frames from ``start`` up to ``stop``. A rest is copied, so that the frames before it can be freed."""

    def part(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        return value[start:stop].clone() if start else value[start:stop]

    features = part(video.features)
    assert features is not None
    return VideoTokens(features, video.grid, part(video.scores), part(video.keys), part(video.frame_embeddings))
