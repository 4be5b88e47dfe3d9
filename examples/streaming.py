"""An answer that is printed while it is made. See offline.py for the arguments.

python examples/streaming.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given

from holitom import Pipeline


def main(arguments: Sequence[str]) -> None:
    """Prints each piece of text as it comes, then how long the first one took."""
    film, question, checkpoint = given(arguments)
    pipeline = Pipeline.from_pretrained(checkpoint)
    method = pipeline.recommended or "spread:retention=0.25"  # what lies beside the weights, if anything
    answer = pipeline.ask(film, question, method, streamer=lambda piece: print(piece, end="", flush=True))
    print(f"\nfirst token after {answer.time_to_first_token:.2f} s, {answer.summary}")


if __name__ == "__main__":
    main(sys.argv[1:])
