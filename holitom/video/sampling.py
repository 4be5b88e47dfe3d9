"""Which frames of a video the model sees."""

from __future__ import annotations

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
