"""Synthetic clips as files: mp4 videos and a JSON-lines file of questions."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from holitom.video.synthetic.suite import clips

FPS = 4
CRF = 10
QUESTIONS_FILE = "questions.jsonl"


def write_mp4(frames: NDArray[np.uint8], path: Path, fps: int | Fraction = FPS, crf: int = CRF) -> None:
    """Write RGB frames (T, H, W, 3), with H and W even, as an H.264 mp4 (4:2:0), by default of high quality."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (T, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"4:2:0 video needs an even height and width, not {frames.shape[1]} x {frames.shape[2]}")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "medium"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def write_clips(folder: Path, n: int, split: str = "test", seed: int = 0) -> Path:
    """Write the first ``n`` clips of a split to ``folder``: NAME.mp4 each, and all questions in questions.jsonl.

    A line holds video, task, question, answer and choices. Returns the path of the questions.
    """
    if n < 1:
        raise ValueError(f"n is {n}; write at least 1 clip")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / QUESTIONS_FILE
    with path.open("w", encoding="utf-8") as lines:
        for clip in islice(clips(split, seed), n):
            video = f"{clip.name}.mp4"
            write_mp4(clip.frames, folder / video)
            for question in clip.questions:
                row = {
                    "video": video,
                    "task": question.task,
                    "question": question.text,
                    "answer": question.answer,
                    "choices": list(question.choices),
                }
                lines.write(json.dumps(row) + "\n")
    return path
