"""The suite of clips: seeds, splits and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holitom.video.synthetic.questions import ASKERS, Question, ask
from holitom.video.synthetic.render import render
from holitom.video.synthetic.scene import Scenes, sample_scenes

SPLITS = ("train", "val", "test")
TASKS = tuple(ASKERS)
"""Names of all tasks; which of them the bundled model answers well is in its model card."""
BLOCK = 16
"""Clips are drawn in blocks of this many; a block is a pure function of its split, seed and number."""


@dataclass(frozen=True)
class SyntheticClip:
    """A clip: ``name``, ``frames`` (T, H, W, 3) uint8 RGB and its ``questions``."""

    name: str
    frames: NDArray[np.uint8]
    questions: list[Question]


@dataclass(frozen=True)
class Block:
    """BLOCK clips: ``scenes``, ``frames`` (B, T, H, W, 3), ``questions`` by clip, ``owner`` (B, T, H, W) or None."""

    scenes: Scenes
    frames: NDArray[np.uint8]
    questions: list[list[Question]]
    owner: NDArray[np.int8] | None


def seed_of(split: str, seed: int, number: int) -> np.random.SeedSequence:
    """Return the seed sequence of a block.

    The split is the first key of the sequence, so that no two splits ever share a stream, whatever the seeds.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    if seed < 0 or number < 0:
        raise ValueError(f"seed and block number must be 0 or more, not {seed} and {number}")
    return np.random.SeedSequence(entropy=seed, spawn_key=(SPLITS.index(split), number))


def block(split: str, number: int, seed: int = 0, with_owner: bool = False) -> Block:
    """Draw block ``number`` of a split: BLOCK clips; ``with_owner`` adds the map from pixels to objects."""
    layout, pixels, words = (np.random.Generator(np.random.PCG64(s)) for s in seed_of(split, seed, number).spawn(3))
    scenes = sample_scenes(layout, BLOCK)
    frames, owner = render(scenes, pixels, with_owner)
    return Block(scenes, frames, [ask(scenes, b, words) for b in range(BLOCK)], owner)


def clips(split: str, seed: int = 0) -> Iterator[SyntheticClip]:
    """Yield the clips of a split one after the other, without end."""
    number = 0
    while True:
        drawn = block(split, number, seed)
        for b in range(BLOCK):
            yield SyntheticClip(f"{split}-{seed}-{number * BLOCK + b:05d}", drawn.frames[b], drawn.questions[b])
        number += 1


def suite(split: str, n: int, seed: int = 0) -> list[SyntheticClip]:
    """Return the first ``n`` clips of a split (about 0.6 MB each).

    A longer suite of the same split and seed begins with the same clips. Splits are disjoint by construction.
    """
    if n < 1:
        raise ValueError(f"n is {n}; a suite has at least 1 clip")
    stream = clips(split, seed)
    return [next(stream) for _ in range(n)]
