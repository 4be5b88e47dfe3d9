"""Frames to measure on: synthetic scenes, enlarged, with noise."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from holitom.video.synthetic.suite import clips

NOISE = 0.05
DESCRIPTION = (
    "synthetic clips of 16 frames (holitom.video.synthetic, split train), one after the other, enlarged bilinearly, "
    f"with Gaussian noise of {NOISE} of the value range"
)


def description(static: float = 0.0) -> str:
    """What the frames show, in a sentence."""
    return DESCRIPTION + (f"; the upper {static:.0%} of the picture stay as in the first frame" if static else "")


def frames(count: int, side: int, seed: int = 0, noise: float = NOISE, static: float = 0.0) -> Tensor:
    """A video of made-up scenes, with a cut at least every 16 frames.

    Args:
        count: T, the number of frames.
        side: their height and width in pixels.
        seed: other seeds give other scenes.
        noise: standard deviation of what is added to each pixel, where values span [-1, 1].
        static: the share of the picture, from the top, that stays as it is in the first frame, noise included.

    Returns:
        (T, 3, side, side) float32.
    """
    if not 0 <= static <= 1:
        raise ValueError(f"static is a share of the picture and must lie in [0, 1], got {static}")
    if count < 1 or side < 1:
        raise ValueError(f"count and side must be at least 1, got {count} and {side}")
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty(count, 3, side, side, dtype=torch.float32, device="cpu")
    done = 0
    for clip in islice(clips("train", seed), -(-count // 16)):
        part = torch.from_numpy(clip.frames[: count - done]).permute(0, 3, 1, 2).float() / 127.5 - 1
        out[done : done + len(part)] = functional.interpolate(part, (side, side), mode="bilinear", align_corners=False)
        done += len(part)
    for frame in out:  # one at a time: noise as large as a long video would double its memory
        frame.add_(torch.randn(frame.shape, generator=generator, dtype=torch.float32, device="cpu"), alpha=2 * noise)
    still = round(static * side)
    out[1:, :, :still] = out[:1, :, :still]
    return out


def patches(video: Tensor, patch: int, step: int = 2, merge: int = 2) -> tuple[Tensor, tuple[int, int, int]]:
    """A video as Qwen's towers take it: ``step`` frames together, squares of ``merge`` patches next to each other.

    Args:
        video: (T, 3, H, W); the last frame is repeated until ``step`` divides T.
        patch: side of a patch in pixels.
        step: frames that are taken together.
        merge: side of a square, in patches.

    Returns:
        (steps * h * w, 3 * step * patch * patch) and the grid (steps, h, w) in patches.
    """
    count, channels, height, width = video.shape
    if height % (patch * merge) or width % (patch * merge):
        raise ValueError(f"frames of {height} x {width} pixels do not divide into squares of {patch * merge}")
    if count % step:
        video = torch.cat([video, video[-1:].expand(step - count % step, -1, -1, -1)])
    steps, rows, columns = len(video) // step, height // patch, width // patch
    parts = video.view(
        steps, step, channels, rows // merge, merge, patch, columns // merge, merge, patch
    )  # to (steps, rows of squares, columns of squares, row and column in the square, channel, frame, y, x)
    flat = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(steps * rows * columns, -1)
    return flat, (steps, rows, columns)
