"""Drawing of sampled scenes: textured backgrounds, soft-edged shapes, brightness drift and camera noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holitom.video.synthetic.scene import FRAMES, SIZE, SLOTS, Scenes

PALETTE = np.array(
    [[225, 40, 40], [40, 190, 55], [50, 80, 235], [240, 215, 40], [170, 50, 205], [50, 215, 225]], dtype=np.float32
)
"""RGB of COLOURS, in grey levels."""

_Grid = NDArray[np.float32]
_MARGIN = 8
_CANVAS = SIZE + 2 * _MARGIN
_MAX_SCENES = 3
_WINDOW = 32
_NOISE = np.random.Generator(np.random.PCG64(20240607)).normal(0.0, 1.0, 1 << 20).astype(np.float32)


def render(
    scenes: Scenes, rng: np.random.Generator, with_owner: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int8] | None]:
    """Draw B scenes.

    Returns the frames (B, T, H, W, 3) and, ``with_owner``, the slot that owns each pixel (B, T, H, W), -1 for the
    background (else None).
    """
    n = len(scenes)
    backgrounds = _backgrounds(rng, n)
    frames = _crop(backgrounds, scenes)
    owner = np.full((n, FRAMES, SIZE, SIZE), -1, dtype=np.int8) if with_owner else None
    for slot in range(SLOTS):
        _draw(frames, owner, scenes, slot)
    frames *= scenes.brightness[:, :, None, None, None].astype(np.float32)
    _add_noise(frames, scenes.noise, rng)
    np.clip(frames, 0.0, 255.0, out=frames)
    return (frames + 0.5).astype(np.uint8), owner


def _upsampling(cells: int) -> NDArray[np.float32]:
    """Linear upsampling matrix (_CANVAS, cells) with weights in sixteenths: products with integers stay exact."""
    place = np.linspace(0.0, cells - 1.0, _CANVAS)
    left = np.minimum(place.astype(np.int64), cells - 2)
    share = np.round((place - left) * 16.0)
    matrix = np.zeros((_CANVAS, cells), dtype=np.float32)
    matrix[np.arange(_CANVAS), left] = 16.0 - share
    matrix[np.arange(_CANVAS), left + 1] += share
    return matrix


_OCTAVES = tuple(_upsampling(cells) for cells in (4, 10, 32))


def _backgrounds(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Three backgrounds a clip (n, 3, canvas, canvas, 3): three octaves of value noise in greyish tints."""
    texture = np.zeros((n, _MAX_SCENES, _CANVAS, _CANVAS), dtype=np.float32)
    for matrix in _OCTAVES:
        cells = matrix.shape[1]
        values = rng.integers(-128, 128, (n, _MAX_SCENES, cells, cells)).astype(np.float32)
        contrast = rng.uniform(0.03, 0.28, (n, _MAX_SCENES, 1, 1)).astype(np.float32)
        texture += (matrix @ values @ matrix.T) * (contrast / np.float32(256.0))
    # The levels of one clip's scenes lie in three separate bands, in random order, so that every cut is visible.
    band = rng.random((n, _MAX_SCENES)).argsort(1)
    level = 45.0 + 42.0 * band + rng.uniform(0.0, 24.0, (n, _MAX_SCENES))
    tint = level[:, :, None] + rng.uniform(-14.0, 14.0, (n, _MAX_SCENES, 3))
    return texture[..., None] + tint[:, :, None, None].astype(np.float32)


def _crop(backgrounds: NDArray[np.float32], scenes: Scenes) -> NDArray[np.float32]:
    """Cut each frame's view (B, T, H, W, 3) out of its scene's background, moved by the pan in whole pixels."""
    n = len(scenes)
    frames = np.empty((n, FRAMES, SIZE, SIZE, 3), dtype=np.float32)
    corner = _MARGIN - np.rint(scenes.pan).astype(np.int64)
    for b in range(n):
        for t in range(FRAMES):
            x, y = corner[b, t]
            frames[b, t] = backgrounds[b, scenes.scene[b, t], y : y + SIZE, x : x + SIZE]
    return frames


def _signed_distance(
    shape: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[np.float32], radius: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Approximate distance to the outline (K, h, w), negative inside, of shapes (K,) of the given radii (K, 1, 1)."""
    out = np.empty(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for kind, distance in enumerate(_DISTANCES):
        which = np.nonzero(shape == kind)[0]
        if len(which):
            out[which] = distance(x[which], y[which], radius[which])
    return out


_DISTANCES: tuple[Callable[[_Grid, _Grid, _Grid], Any], ...] = (
    lambda x, y, r: np.sqrt(x * x + y * y) - r,
    lambda x, y, r: np.maximum(np.abs(x), np.abs(y)) - r * np.float32(0.9),
    lambda x, y, r: np.maximum((np.abs(x) * np.float32(2.0) - y - r) * np.float32(0.45), y - r),
    lambda x, y, r: np.maximum(
        np.maximum(np.abs(x), np.abs(y)) - r, np.minimum(np.abs(x), np.abs(y)) - r * np.float32(0.36)
    ),
    lambda x, y, r: np.abs(np.sqrt(x * x + y * y) - r * np.float32(0.78)) - r * np.float32(0.24),
    lambda x, y, r: (np.abs(x) + np.abs(y) - r * np.float32(1.1)) * np.float32(0.7),
)
"""From the distances to its middle and its radius: how far a point is from the outline of each of SHAPES."""


def _draw(frames: NDArray[np.float32], owner: NDArray[np.int8] | None, scenes: Scenes, slot: int) -> None:
    """Draw one slot of every clip into every frame where it is visible, in place."""
    b, t = np.nonzero(scenes.visible[:, slot])
    if not len(b):
        return
    centre = scenes.centre[b, slot, t]  # (K, 2)
    corner = np.clip(np.rint(centre).astype(np.int64) - _WINDOW // 2, 0, SIZE - _WINDOW)
    columns = corner[:, :1] + np.arange(_WINDOW)
    rows = corner[:, 1:] + np.arange(_WINDOW)
    x = (columns - centre[:, :1]).astype(np.float32)[:, None, :]
    y = (rows - centre[:, 1:]).astype(np.float32)[:, :, None]
    radius = scenes.radius[b, slot].astype(np.float32)[:, None, None]
    distance = _signed_distance(scenes.shape[b, slot], x, y, radius)
    alpha = np.clip(np.float32(0.5) - distance, 0.0, 1.0)[..., None]
    place = (b[:, None, None], t[:, None, None], rows[:, :, None], columns[:, None, :])
    under = frames[place]
    colour = PALETTE[scenes.colour[b, slot]][:, None, None]
    frames[place] = under + alpha * (colour - under)
    if owner is not None:
        owner[place] = np.where(alpha[..., 0] > 0.5, np.int8(slot), owner[place])


def _add_noise(frames: NDArray[np.float32], sigma: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Add normal noise of ``sigma`` (B,) grey levels in place: slices of one fixed bank, at random offsets."""
    size = frames[0, 0].size
    offsets = rng.integers(0, len(_NOISE) - size, frames.shape[:2])
    for b, row in enumerate(offsets):
        scale = np.float32(sigma[b])
        for t, start in enumerate(row):
            frames[b, t] += (_NOISE[start : start + size] * scale).reshape(frames.shape[2:])
