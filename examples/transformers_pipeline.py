"""transformers' pipeline, compressed: give it to the method like a model. See offline.py for the arguments.

python examples/transformers_pipeline.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given
from transformers import pipeline

from holitom import HoliTom, read_video


def main(arguments: Sequence[str]) -> None:
    """Prints the answer with a quarter of the visual tokens."""
    film, question, checkpoint = given(arguments)
    pipe = pipeline("image-text-to-text", model=checkpoint)
    content = [{"type": "video", "video": read_video(film, 16).frames}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    with HoliTom(retention=0.25)(pipe) as session:
        [answer] = pipe(text=messages, max_new_tokens=64, return_full_text=False, do_sample_frames=False)
    print(answer["generated_text"].strip())
    print(session.summary())


if __name__ == "__main__":
    main(sys.argv[1:])
