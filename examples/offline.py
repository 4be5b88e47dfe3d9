"""What the examples ask about: a film, a question and a checkpoint of yours, or those that need no network.

python examples/NAME.py                                    a synthetic clip and the tiny model inside the package
python examples/NAME.py film.mp4 "What happens?" MODEL     path or hub id of a checkpoint (without it: the tiny model)
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holitom import read_video
from holitom.cli.loading import TINY
from holitom.video.synthetic.files import write_clips

QUESTION = "What colour is the square?"


def given(arguments: Sequence[str]) -> tuple[str, str, str]:
    """The film, the question and the checkpoint that the arguments name, or the ones that need no network."""
    if len(arguments) in (2, 3):
        return arguments[0], arguments[1], [*arguments, str(TINY)][2]
    if arguments:
        sys.exit(__doc__)
    return str(next(clips(1).glob("*.mp4"))), QUESTION, str(TINY)


def clips(number: int) -> Path:
    """A folder with so many synthetic clips and their questions; it goes when the program ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_clips(folder, number)
    return folder


def prepared(processor: Any, film: str, question: str, frames: int = 16) -> Any:
    """Inputs of ``generate()`` from transformers' own processor, with frames that holitom has read."""
    content = [{"type": "video", "video": read_video(film, frames).frames}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"do_sample_frames": False},
    )
