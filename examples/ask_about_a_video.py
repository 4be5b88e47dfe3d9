"""Asks a question about a video with a quarter of its visual tokens.

Offline, about a synthetic clip, with the model inside the package:

    python examples/ask_about_a_video.py

About your film, with a real model:

    python examples/ask_about_a_video.py film.mp4 "What happens?" llava-hf/llava-onevision-qwen2-7b-ov-hf
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from holitom import HoliTom
from holitom.cli.loading import TINY
from holitom.pipeline import Answer, Pipeline
from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_mp4


def ask(video: str, question: str, checkpoint: str) -> Answer:
    """Loads a model and asks it once."""
    pipeline = Pipeline.from_pretrained(checkpoint)
    return pipeline.ask(video, question, HoliTom(retention=0.25), max_new_tokens=64)


def synthetic(folder: Path) -> tuple[str, str]:
    """Writes a clip as a film; returns its path and a question about it."""
    clip = suite("test", 1)[0]
    path = folder / f"{clip.name}.mp4"
    write_mp4(clip.frames, path)
    return str(path), clip.questions[0].text


def main(arguments: list[str]) -> None:
    """Asks about what the command line names."""
    with tempfile.TemporaryDirectory() as folder:
        video, question = arguments[:2] if arguments else synthetic(Path(folder))
        answer = ask(video, question, arguments[2] if len(arguments) > 2 else str(TINY))
    print(question)
    print(answer.text)
    print(answer.summary)


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3, 4):
        sys.exit(__doc__)
    main(sys.argv[1:])
