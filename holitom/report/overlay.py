"""Frames with what became of their patches painted over them: as one picture, an animation, a film."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holitom.merge import Merge
from holitom.report.colours import FILL, PALETTE, colour_tokens

if TYPE_CHECKING:
    from holitom.report.trace import Trace

Picture = NDArray[np.uint8]
SIDE = 336  # pixels on the long side of a painted frame
BAR = 16
_FADE = 0.8
_WHITE, _BLACK, _LINE = (255, 255, 255), (0, 0, 0), (139, 148, 158)
_SEGMENTS = ((10, 95, 180), (87, 96, 106))


@dataclass(frozen=True, eq=False)
class Overlays:
    """Painted frames (T, H, W, 3) uint8, H and W even, and how long each is shown, in seconds."""

    frames: Picture
    seconds: float


def overlays(trace: Trace, run: int = 0, late: bool = False) -> Overlays:
    """The frames of a trace as one of its methods left them: on entering the LLM, or ``late``, after its last stage.

    Of a method that works inside the vision tower alone: what was computed there, on the tower's own grid.
    """
    chosen = trace.runs[run]
    stage = chosen.stages[-1 if late else 0]
    merge, grid = stage.merge, trace.grid
    if chosen.tower is not None and trace.tower is not None and len(chosen.stages) == 1 and merge.retention == 1:
        merge, grid = chosen.tower, trace.tower.grid
    times = trace.times
    seconds = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
    return Overlays(paint(trace.pictures, merge, grid), min(1.0, max(0.1, seconds)))


def paint(frames: Picture, merge: Merge, grid: tuple[int, int], side: int = SIDE) -> Picture:
    """Paints what a map did over the frames.

    Patches that share a token share a colour, also across time; dropped ones fade and are crossed by a line; where a
    token stands, there is an outline. A bar above the frame changes its colour with each segment.

    Args:
        frames: (T, H, W, 3) uint8.
        merge: a map of T * h * w patches.
        grid: (h, w).
        side: pixels on the long side, about; a patch has at least 8.

    Returns:
        (T, H', W', 3) uint8, H' and W' even.

    Raises:
        ValueError: when the map is not one of these patches.
    """
    from PIL import Image

    rows, columns = grid
    if merge.inputs != len(frames) * rows * columns:
        raise ValueError(
            f"the map has {merge.inputs} sources, but {len(frames)} frames of {rows} x {columns} patches have "
            f"{len(frames) * rows * columns}"
        )
    scale = side / max(frames.shape[1:3])
    high = max(8, 2 * round(frames.shape[1] * scale / rows / 2))
    wide = max(8, 2 * round(frames.shape[2] * scale / columns / 2))
    size = (columns * wide, rows * high)
    way = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR
    target = merge.target.cpu().numpy().reshape(-1, rows, columns)
    colour = colour_tokens(merge, len(frames), grid)
    stands = merge.anchor.cpu().numpy()
    anchors = np.zeros_like(target, dtype=bool)
    anchors.reshape(-1)[stands[stands >= 0]] = True
    painted = np.empty((len(frames), rows * high + BAR, columns * wide, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        picture = np.asarray(Image.fromarray(frame).resize(size, way), dtype=np.float32)
        below = _fill(picture, target[number], colour, high, wide)
        _borders(below, target[number], colour, high, wide)
        for row, column in np.argwhere(anchors[number]):
            _outline(below[row * high : (row + 1) * high, column * wide : (column + 1) * wide])
        painted[number, BAR:] = below.round().clip(0, 255).astype(np.uint8)
        painted[number, :BAR] = _WHITE
        for place, (first, last) in enumerate(merge.spans or ()):
            if first <= number <= last:
                painted[number, 2 : BAR - 2] = _SEGMENTS[place % 2]
    return painted


def contact_sheet(frames: Picture, per_row: int = 8, gap: int = 6) -> Picture:
    """Frames (T, H, W, 3) in rows on white, as one (H', W', 3)."""
    count, high, wide, _ = frames.shape
    per_row = min(per_row, count)
    lines = -(-count // per_row)
    sheet = np.full((lines * (high + gap) - gap, per_row * (wide + gap) - gap, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // per_row * (high + gap), number % per_row * (wide + gap)
        sheet[top : top + high, left : left + wide] = frame
    return sheet


def write_png(pictures: Overlays, path: Path) -> Path:
    """All frames as one picture."""
    from PIL import Image

    Image.fromarray(contact_sheet(pictures.frames)).save(path, "PNG", optimize=True)
    return path


def write_gif(pictures: Overlays, path: Path) -> Path:
    """An endless animation, in one palette for all frames, so that colours do not flicker."""
    from PIL import Image

    palette = Image.fromarray(contact_sheet(pictures.frames)[::2, ::2]).quantize(255, Image.Quantize.MEDIANCUT)
    frames: list[Image.Image] = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in pictures.frames
    ]
    frames[0].save(
        path, "GIF", save_all=True, append_images=frames[1:], duration=round(1000 * pictures.seconds), loop=0
    )
    return path


def write_mp4(pictures: Overlays, path: Path) -> Path:
    """A film (H.264), each frame as long as in the video."""
    from holitom.video.synthetic import files

    files.write_mp4(pictures.frames, path, Fraction(1 / pictures.seconds).limit_denominator(100), crf=23)
    return path


def _fill(
    picture: NDArray[np.float32], target: NDArray[np.int64], colour: NDArray[np.int64], high: int, wide: int
) -> NDArray[np.float32]:
    from PIL import ImageColor

    inks = np.array([*map(ImageColor.getrgb, PALETTE), _WHITE], dtype=np.float32)
    shade = np.append(colour, -1)[target]  # a dropped patch has target -1, the appended place
    dropped = target < 0
    ink = inks[np.where(dropped, len(PALETTE), shade)]
    alpha = np.where(dropped, _FADE, np.where(shade >= 0, FILL, 0.0)).astype(np.float32)

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        return values.repeat(high, 0).repeat(wide, 1)

    # below a token's colour the picture is grey, so that the colour is the token's alone
    grey = (picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    below = np.where(spread((shade >= 0)[..., None]), grey, picture)
    mixed: NDArray[np.float32] = below + (spread(ink) - below) * spread(alpha[..., None])
    slant = np.zeros((high, wide), dtype=bool)
    step = np.linspace(0.25, 0.75, 2 * max(high, wide))
    slant[((1 - step) * high).astype(int), (step * wide).astype(int)] = True
    mixed[np.kron(dropped, slant).astype(bool)] = _LINE
    return mixed


def _borders(
    picture: NDArray[np.float32], target: NDArray[np.int64], colour: NDArray[np.int64], high: int, wide: int
) -> None:
    """A dark line between patches of different tokens where one of them is merged."""
    shared = np.append(colour, -1)[target] >= 0
    across = (target[:, 1:] != target[:, :-1]) & (shared[:, 1:] | shared[:, :-1])
    for row, column in np.argwhere(across):
        picture[row * high : (row + 1) * high, (column + 1) * wide] = _BLACK
    down = (target[1:] != target[:-1]) & (shared[1:] | shared[:-1])
    for row, column in np.argwhere(down):
        picture[(row + 1) * high, column * wide : (column + 1) * wide] = _BLACK


def _outline(patch: NDArray[np.float32]) -> None:
    for depth, ink in ((0, _BLACK), (1, _WHITE), (2, _WHITE), (3, _BLACK)):
        inner = patch[depth : patch.shape[0] - depth, depth : patch.shape[1] - depth]
        inner[0], inner[-1], inner[:, 0], inner[:, -1] = ink, ink, ink, ink
