"""Two videos in one prompt, each compressed by itself. See offline.py for the arguments; --with names a second film.

python examples/several_videos.py
python examples/several_videos.py film.mp4 "Which one is longer?" MODEL --with other.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import clips, given

from holitom import Pipeline


def main(arguments: Sequence[str]) -> None:
    """Prints the answer and what became of each video."""
    words = list(arguments)
    second = words.pop(words.index("--with") + 1) if "--with" in words else str(sorted(clips(2).glob("*.mp4"))[1])
    film, question, checkpoint = given([word for word in words if word != "--with"])
    answer = Pipeline.from_pretrained(checkpoint).ask([film, second], question, "spread:retention=0.25")
    print(answer.text)
    whole, entering, _ = answer.summary.visual_tokens
    print(f"{entering:,} of {whole:,} visual tokens of both videos entered the LLM")


if __name__ == "__main__":
    main(sys.argv[1:])
