"""Decoded frames to RGB, upright: phones record sideways and leave a note about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from holitom.video.errors import VideoError

Shrink: TypeAlias = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""From a frame (H, W, 3) of a video of which T are taken, and T, to a smaller one."""
Fit: TypeAlias = "int | Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None"
"""The shorter side in pixels, or a function of a frame (H, W, 3); None: as it is."""
ROUNDING = 1e-3  # matrices written from a cosine hold something like 4e-17 in place of 0


def upright(frame: NDArray[np.uint8], matrix: bytes | None) -> NDArray[np.uint8]:
    """Apply a container's display matrix to one frame.

    Args:
        frame: (H, W, 3) as decoded.
        matrix: nine native int32, row by row (a b u / c d v / x y w), as FFmpeg attaches them to a frame: the source
            point (x, y) is shown at (a x + c y, b x + d y). None: nothing to do.

    Returns:
        (H, W, 3) or (W, H, 3), a view. Quarter turns and mirrors are applied; a matrix that turns by any other angle
        leaves the frame as it is, as video players do.
    """
    if matrix is None or len(matrix) != 36:
        return frame
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    small = ROUNDING * max(abs(a), abs(b), abs(c), abs(d))
    if abs(b) <= small and abs(c) <= small and abs(a) > small and abs(d) > small:
        across, down = a, d
    elif abs(a) <= small and abs(d) <= small and abs(b) > small and abs(c) > small:
        frame = frame.transpose(1, 0, 2)
        across, down = c, b
    else:
        return frame
    return frame[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1]


def fitted(height: int, width: int, size: Fit) -> tuple[int, int]:
    """(height, width) with the shorter side brought down to ``size`` pixels, in proportion; never enlarged."""
    shorter = min(height, width)
    if not isinstance(size, int) or shorter <= size:
        return height, width
    return max(1, round(height * size / shorter)), max(1, round(width * size / shorter))


class Converter:
    """Decoded frames to upright RGB, all of one size, (H, W, 3) uint8."""

    def __init__(self, size: Fit, source: str) -> None:
        self.size, self.source = size, source
        self.stored: tuple[int, int] | None = None  # height and width before turning
        self.matrix: bytes | None = None
        self.turns = 0
        self.reformatter = VideoReformatter()  # of all frames: setting one up takes longer than using it
        self.corrupt = 0

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """One frame of PyAV; the first one decides about the size and how it is turned."""
        first = self.stored is None
        if self.stored is None:
            self.stored = fitted(frame.height, frame.width, self.size)
        height, width = self.stored  # a stream that changes its size midway keeps that of its first frame
        interpolation = None if (frame.height, frame.width) == self.stored else "BICUBIC"
        try:
            picture = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation)
        except (av.FFmpegError, ValueError) as error:
            reason = f"its colours ({frame.format.name}) cannot be turned into RGB"
            raise VideoError(self.source, reason, "Convert it to yuv420p with the ffmpeg command.") from error
        if first:
            # A frame that is asked for this lives until Python collects garbage: not each, and not the decoder's.
            try:
                matrix: Any = picture.side_data.get("DISPLAYMATRIX")
                self.matrix = None if matrix is None else bytes(matrix)
            except ValueError:  # PyAV does not know a kind of note beside the frame, as EXIF; then it tells turns alone
                self.turns = round(frame.rotation / 90)
        rgb: NDArray[Any] = picture.to_ndarray()
        self.corrupt += bool(frame.is_corrupt)
        shown = np.rot90(upright(rgb, self.matrix), self.turns)
        return self.size(shown) if callable(self.size) else shown
