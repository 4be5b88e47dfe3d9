"""Seeded synthetic clips with questions: the offline testbed's data."""

from __future__ import annotations

from holitom.video.synthetic.questions import Question
from holitom.video.synthetic.scene import COLOURS, FRAMES, SHAPES, SIZE, Scenes
from holitom.video.synthetic.suite import SPLITS, TASKS, SyntheticClip, block, suite

__all__ = [
    "COLOURS", "FRAMES", "SHAPES", "SIZE", "SPLITS", "TASKS", "Question", "Scenes", "SyntheticClip", "block", "suite",
]  # fmt: skip
