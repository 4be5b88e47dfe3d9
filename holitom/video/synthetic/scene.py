"""Sampling of synthetic scenes: what is in a clip, where and when, before a single pixel is drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

SIZE = 112
"""Height and width of a clip in pixels."""
FRAMES = 16
"""Frames in a clip."""
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
MAX_COUNT = 5
"""Most lasting objects in a clip; one more slot, the last, holds the flash."""
SLOTS = MAX_COUNT + 1
STILL, LEFT, RIGHT, UP, DOWN = range(5)

_STEP = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], dtype=np.float64)
_CANDIDATES = 64
_PAN_LIMIT = 5.0


@dataclass(frozen=True)
class Scenes:
    """B sampled scenes of SLOTS objects and FRAMES frames.

    ``count`` (B,) lasting objects, in slots 0..count-1; the flash, where ``flashes`` (B,), is slot MAX_COUNT.
    ``shape`` and ``colour`` (B, S) index SHAPES and COLOURS and never repeat within a clip. ``radius`` (B, S) pixels.
    ``centre`` (B, S, T, 2) pixels as x, y. ``visible`` (B, S, T). ``appears`` (B, S) first visible frame.
    ``heading`` (B, S) STILL..DOWN. ``scene`` (B, T) running number of the scene, 0 before the first cut.
    ``pan`` (B, T, 2) pixels. ``brightness`` (B, T) factor. ``noise`` (B,) camera noise in grey levels.
    """

    count: NDArray[np.int64]
    flashes: NDArray[np.bool_]
    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    radius: NDArray[np.float64]
    centre: NDArray[np.float64]
    visible: NDArray[np.bool_]
    appears: NDArray[np.int64]
    heading: NDArray[np.int64]
    scene: NDArray[np.int64]
    pan: NDArray[np.float64]
    brightness: NDArray[np.float64]
    noise: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.count)

    def take(self, index: slice) -> Scenes:
        """Return the scenes at ``index``."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def sample_scenes(rng: np.random.Generator, n: int) -> Scenes:
    """Sample ``n`` scenes from ``rng``.

    Sizes, textures and noise are drawn independently of the number of objects, so that neither the area nor the number
    of changing patches tells how many objects there are.
    """
    count = rng.integers(1, MAX_COUNT + 1, n)
    flashes = rng.random(n) < 0.8
    slot = np.arange(SLOTS)
    exists = slot < count[:, None]
    exists[:, MAX_COUNT] = flashes

    shape = rng.random((n, len(SHAPES))).argsort(1)[:, :SLOTS]
    colour = rng.random((n, len(COLOURS))).argsort(1)[:, :SLOTS]
    scale = rng.uniform(8.0, 13.0, (n, 1))
    radius = np.clip(scale * rng.uniform(0.8, 1.25, (n, SLOTS)), 7.5, 14.0)

    late = rng.random((n, SLOTS)) < 0.5
    late[:, 0] = rng.random(n) < 0.2
    appears = np.where(late, rng.integers(2, 11, (n, SLOTS)), 0)
    appears[:, MAX_COUNT] = rng.integers(1, FRAMES - 2, n)
    frame = np.arange(FRAMES)
    visible = exists[:, :, None] & (frame >= appears[:, :, None])
    lasts = rng.integers(1, 3, n)
    visible[:, MAX_COUNT] &= frame < (appears[:, MAX_COUNT] + lasts)[:, None]

    movers = np.minimum(rng.choice(3, n, p=[0.1, 0.5, 0.4]), count)
    order = np.where(exists[:, :MAX_COUNT], rng.random((n, MAX_COUNT)), 2.0).argsort(1).argsort(1)
    moving = np.zeros((n, SLOTS), dtype=bool)
    moving[:, :MAX_COUNT] = order < movers[:, None]
    heading = np.where(moving, rng.integers(1, 5, (n, SLOTS)), STILL)

    pan = _sample_pan(rng, n)
    centre = _place(rng, radius, heading, appears, visible) + pan[:, None]
    return Scenes(
        count=count,
        flashes=flashes,
        shape=shape,
        colour=colour,
        radius=radius,
        centre=centre,
        visible=visible,
        appears=appears,
        heading=heading,
        scene=_sample_cuts(rng, n),
        pan=pan,
        brightness=_sample_brightness(rng, n),
        noise=rng.uniform(1.0, 5.0, n),
    )


def _sample_pan(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Camera pan (n, T, 2): a slow straight drift in 3 of 10 clips, at most _PAN_LIMIT pixels from its middle."""
    end = rng.uniform(-_PAN_LIMIT, _PAN_LIMIT, (n, 1, 2)) * (rng.random((n, 1, 1)) < 0.3)
    ramp = np.linspace(-1.0, 1.0, FRAMES)[None, :, None]
    return end * ramp


def _sample_brightness(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Brightness factor (n, T): a linear drift of up to 15 % either way in 4 of 10 clips."""
    end = rng.uniform(-0.15, 0.15, (n, 1)) * (rng.random((n, 1)) < 0.4)
    return 1.0 + end * np.linspace(-1.0, 1.0, FRAMES)[None]


def _sample_cuts(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Scene number (n, T): none, one or two cuts, at least four frames from the ends and from one another."""
    cuts = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    single = rng.integers(4, FRAMES - 3, n)
    first = rng.integers(4, 8, n)
    second = rng.integers(first + 4, FRAMES - 3)
    at_first = np.where(cuts == 0, FRAMES, np.where(cuts == 1, single, first))
    at_second = np.where(cuts == 2, second, FRAMES)
    frame = np.arange(FRAMES)
    return (frame >= at_first[:, None]).astype(np.int64) + (frame >= at_second[:, None])


def _place(
    rng: np.random.Generator,
    radius: NDArray[np.float64],
    heading: NDArray[np.int64],
    appears: NDArray[np.int64],
    visible: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Place objects so that they stay inside the picture and, of _CANDIDATES tries a clip, overlap least.

    Returns the centres (B, S, T, 2) in pixels, without the camera pan.
    """
    n = len(radius)
    travel = rng.uniform(34.0, 58.0, radius.shape) * (heading != STILL)
    step = _STEP[heading]  # (B, S, 2)
    frame = np.arange(FRAMES)
    progress = (frame - appears[:, :, None]) / (FRAMES - 1 - appears[:, :, None])
    offset = (np.clip(progress, 0.0, 1.0) - 0.5)[..., None] * (travel[..., None] * step)[:, :, None]  # (B, S, T, 2)
    low = (radius + _PAN_LIMIT + 1.0)[..., None] + 0.5 * travel[..., None] * np.abs(step)  # (B, S, 2)
    middle = low[:, None] + rng.random((n, _CANDIDATES, SLOTS, 2)) * (SIZE - 2.0 * low)[:, None]
    first, second = np.triu_indices(SLOTS, 1)
    apart = middle[:, :, first] - middle[:, :, second]  # (B, C, P, 2)
    shift = offset[:, first] - offset[:, second]  # (B, P, T, 2)
    together = visible[:, first] & visible[:, second]
    reach = (radius[:, first] + radius[:, second] + 1.0) ** 2
    gap = np.full((n, _CANDIDATES), np.inf)
    for t in range(0, FRAMES, 3):
        delta = apart + shift[:, None, :, t]
        near = (delta * delta).sum(-1) / reach[:, None]
        near = np.where(together[:, None, :, t : t + 3].any(-1), near, np.inf)
        gap = np.minimum(gap, near.min(-1))
    best = gap.argmax(1)
    best = np.where((gap >= 1.0).any(1), (gap >= 1.0).argmax(1), best)
    chosen: NDArray[np.float64] = middle[np.arange(n), best]
    placed: NDArray[np.float64] = chosen[:, :, None] + offset
    return placed
