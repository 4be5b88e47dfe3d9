"""Asks a question about a video with a quarter of its visual tokens. See offline.py for the arguments.

python examples/ask_about_a_video.py
python examples/ask_about_a_video.py film.mp4 "What happens?" llava-hf/llava-onevision-qwen2-7b-ov-hf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given

from holitom import HoliTom, Pipeline


def main(arguments: Sequence[str]) -> None:
    """Prints the question, the answer, and what was saved."""
    film, question, checkpoint = given(arguments)
    answer = Pipeline.from_pretrained(checkpoint).ask(film, question, HoliTom(retention=0.25), max_new_tokens=64)
    print(question)
    print(answer.text)
    print(answer.summary)


if __name__ == "__main__":
    main(sys.argv[1:])
