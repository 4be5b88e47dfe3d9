"""Traces for the tests of pages and pictures: of a random checkpoint, and made by hand at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny_checkpoints import build_llava_onevision

from holitom.merge import Merge
from holitom.methods import HoliTom
from holitom.methods.base import Method
from holitom.methods.registry import parse
from holitom.ops.similarity import neighbour_cosine
from holitom.pipeline import Pipeline
from holitom.report.trace import Trace, run_of, trace
from holitom.runtime import VideoRecord
from holitom.tokens import VideoTokens
from holitom.video import Clip

QUESTION = "What happens?"


def moving(frames: int, height: int = 56, width: int = 56) -> Clip:
    """A still background of coloured tiles that changes once, and a square that crosses it."""
    generator = np.random.default_rng(0)
    scenes = generator.integers(0, 255, (2, 7, 7, 3), dtype=np.uint8)
    video = np.stack([scenes[2 * frame // frames] for frame in range(frames)])
    video = video.repeat(-(-height // 7), 1).repeat(-(-width // 7), 2)[:, :height, :width].copy()
    for frame in range(frames):
        left = frame * (width - width // 4) // max(1, frames - 1)
        video[frame, height // 3 : height // 3 + height // 4, left : left + width // 4] = (255, 40, 40)
    return Clip.from_frames(video, fps=2.0, source="moving.mp4")


def pipeline(folder: Path) -> Pipeline:
    """A random model of 4 x 4 tokens a frame."""
    return Pipeline.from_pretrained(build_llava_onevision(folder / "checkpoint", sharpen=20), device="cpu")


def small(pipe: Pipeline, *methods: str, frames: int = 8, question: str = QUESTION, clip: Clip | None = None) -> Trace:
    """Methods on the moving square."""
    return trace(
        pipe, clip or moving(frames), question, [parse(name) for name in methods or ("holitom",)], max_new_tokens=3
    )


def large(
    sample: Trace, frames: int, grid: tuple[int, int], size: tuple[int, int], methods: list[Method] | None = None
) -> Trace:
    """A trace of any size from features made up: answers, times and costs are those of ``sample``."""
    generator = torch.Generator().manual_seed(0)
    positions = grid[0] * grid[1]
    scene = torch.randn(4, positions, 32, generator=generator)
    features = torch.stack([scene[4 * frame // frames] for frame in range(frames)])
    features = features + 0.3 * torch.randn(features.shape, generator=generator)
    scores = torch.rand(frames, positions, generator=generator)
    video = VideoTokens(features, grid, scores=scores)
    similarity = neighbour_cosine(features)
    noise = np.random.default_rng(0).integers(-40, 40, (*size, 3))
    film = moving(frames, *size)
    clip = Clip.from_frames((film.frames.astype(np.int16) + noise).clip(0, 255).astype(np.uint8), 2.0, film.source)
    runs = []
    for method in methods or [HoliTom()]:
        answer = sample.runs[0].answer
        prompt = answer.summary.prompts[0]
        before = prompt.videos
        prompt.videos = [VideoRecord(0, frames, grid, method.merge_video(video), scores=scores)]
        runs.append(run_of(method, answer, similarity))
        prompt.videos = before
    return Trace(clip, QUESTION, "made up", grid, similarity, scores, sample.full, tuple(runs))


def sources_of(merge: Merge, source: int) -> dict[int, float]:
    """All patches that share a token with a patch, with their weights, straight from the Merge."""
    outputs = [int(output) for s, output, _ in zip(*merge.edges(), strict=True) if int(s) == source]
    found: dict[int, float] = {}
    for output in outputs:
        for other, weight in zip(*merge.sources(output), strict=True):
            found[int(other)] = found.get(int(other), 0.0) + float(weight)
    return found
