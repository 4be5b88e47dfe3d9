"""A video's encoded frames, collected until a window is complete, and how many tokens each window gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

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


class Budget:
    """Shares a number of tokens out over the windows of a video, by what each needs, and never gives more.

    What a window needs is the number of its tokens that are not redundant: HoliTom keeps the same share of those
    everywhere in a video, and so does this in the windows of one. What the frames to come will need is taken to be what
    the frames so far needed on average. With ``left`` tokens left,

        grant  =  left * need / (need + mean need of a frame so far * frames to come)

    so that what one window leaves goes to all later ones, the last window gets all that is left, and a video of one
    window gets the whole budget. Every window gets at least one token.

    Args:
        tokens: to be shared out.
        frames: T, expected.
        positions: N, the tokens of a frame.
        shortest: the fewest frames of a window that is not the last.

    Raises:
        ValueError: when there may be more windows than tokens.
    """

    def __init__(self, tokens: int, frames: int, positions: int, shortest: int) -> None:
        self.positions, self.shortest = positions, shortest
        self.left, self.frames_left = tokens, frames
        self._seen = self._needed = 0
        most = self._most_windows()
        if tokens < most:
            raise ValueError(
                f"a budget of {tokens} visual tokens leaves less than one for each of up to {most} windows of "
                f"{frames} frames: give {most} tokens or more, or a longer window"
            )

    def share(self, frames: int, need: int, last: bool) -> int:
        """The tokens of the next window.

        Args:
            frames: of the window.
            need: its tokens that are not redundant.
            last: whether it is the last window.
        """
        self.frames_left = max(0, self.frames_left - frames)
        self._seen += frames
        self._needed += need
        if last:
            grant = self.left
        else:
            coming = self._needed / self._seen * self.frames_left
            grant = int(self.left * need / (need + coming))
            grant = min(max(1, grant), self.left - self._most_windows())
        grant = min(grant, frames * self.positions)
        self.left -= grant
        return grant

    def _most_windows(self) -> int:
        return max(1, -(-self.frames_left // self.shortest))


def _join(parts: list[VideoTokens]) -> VideoTokens:
    if len(parts) == 1:
        return parts[0]
    return _with_each(parts[0], lambda name: torch.cat([getattr(part, name) for part in parts]))


def _frames(video: VideoTokens, start: int, stop: int) -> VideoTokens:
    """The frames from ``start`` up to ``stop``. A rest is copied, so that the frames before it can be freed."""

    def part(name: str) -> Tensor:
        frames: Tensor = getattr(video, name)[start:stop]
        return frames.clone() if start else frames

    return _with_each(video, part)


def _with_each(video: VideoTokens, make: Callable[[str], Tensor]) -> VideoTokens:
    """A video with other values of what it has for each frame, by the names of these; not of what its tower did."""
    names = ("features", "scores", "keys", "frame_embeddings")
    made: dict[str, Any] = {name: make(name) for name in names if getattr(video, name) is not None}
    return replace(video, tower=None, **made)
