"""Which frames of a video the model sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-6  # seconds; times are products of ticks and so not exact
SamplingRule = Literal["floor", "endpoints"]


def sample_indexes(total: int, frames: int, rule: SamplingRule = "floor") -> NDArray[np.int64]:
    """Indexes of ``frames`` frames spread evenly over a video of ``total`` frames.

    Args:
        total: frames in the video, at least 1.
        frames: frames wanted, at least 1. A video with fewer gives all of its frames, each once.
        rule: ``"floor"`` takes frame ``i * total // frames``, the start of each of ``frames`` equal stretches, as the
            video processors of transformers do (``default_sample_indices_fn``; before 5.18 it cut the step to an int).
            ``"endpoints"`` takes ``linspace(0, total - 1, frames)`` cut to integers, first and last frame included, as
            the loaders of LLaVA-NeXT and lmms-eval do, with which the published HoliTom numbers were measured.

    Returns:
        (T,) int64, strictly ascending, T = min(frames, total).

    Raises:
        TypeError: ``total`` or ``frames`` is no int.
        ValueError: a count below 1 or an unknown rule.
    """
    for name, value in (("total", total), ("frames", frames)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if rule not in get_args(SamplingRule):
        raise ValueError(f"rule must be one of {', '.join(get_args(SamplingRule))}, got {rule!r}")
    if frames >= total:
        return np.arange(total, dtype=np.int64)
    if rule == "floor":
        return np.arange(frames, dtype=np.int64) * total // frames
    return np.linspace(0, total - 1, frames, dtype=np.int64)


@dataclass(frozen=True)
class FrameRate:
    """So many frames for each second of a video, within bounds, spread evenly by number: how Qwen's models sample.

    The rule of qwen-vl-utils (``smart_nframes``): the count is rounded down to a multiple, and the frames are
    ``linspace(0, total - 1, count)``, rounded.

    Attributes:
        fps: frames per second, above 0.
        least: frames that are taken of a shorter video, where it has them.
        most: frames that are taken of a longer one.
        multiple: what the count is a multiple of, where the video has so many frames.

    Raises:
        ValueError: naming the attribute that is out of range.
    """

    fps: float = 2.0
    least: int = 4
    most: int = 768
    multiple: int = 2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be above 0, got {self.fps!r}")
        if not 1 <= self.multiple <= self.least <= self.most:
            raise ValueError(f"1 <= multiple <= least <= most must hold, got {self}")

    def take(self, total: int, seconds: float) -> NDArray[np.int64]:
        """The indexes of the frames to take.

        Args:
            total: frames in the video.
            seconds: its length.

        Returns:
            (T,) int64, strictly ascending.
        """
        wanted = int(min(max(seconds * self.fps, self.least), self.most, total))
        count = max(wanted // self.multiple * self.multiple, min(self.multiple, total))
        indexes: NDArray[np.int64] = np.linspace(0, total - 1, count).round().astype(np.int64)
        return indexes


def sample_by_rate(begins: NDArray[np.float64], duration: float, fps: float) -> NDArray[np.int64]:
    """Indexes of the frames on display at 0, 1/fps, 2/fps, ... seconds.

    Args:
        begins: (F,) ascending, seconds at which each frame of the video begins to be shown; the first is 0.
        duration: seconds until the last frame ends.
        fps: samples per second, above 0.

    Returns:
        (T,) int64, strictly ascending: a frame on display at several of these times is taken once.

    Raises:
        ValueError: ``fps`` is not above 0.
    """
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    ends = np.append(begins[1:], max(duration, float(begins[-1]) + 2 * ROUNDING))
    first = np.ceil((begins - ROUNDING) * fps) / fps  # of these times since the frame came on display
    return np.flatnonzero(np.maximum(first, 0.0) + ROUNDING < ends)
