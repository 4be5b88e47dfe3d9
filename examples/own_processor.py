"""Your own model, processor and messages: one `with` block around `generate()`. See offline.py for the arguments.

python examples/own_processor.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given, prepared
from transformers import AutoModelForImageTextToText, AutoProcessor

import holitom


def main(arguments: Sequence[str]) -> None:
    """Prints the answer with a quarter of the visual tokens, and what that saved."""
    film, question, checkpoint = given(arguments)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = prepared(processor, film, question).to(model.device, model.dtype)
    with holitom.parse("spread:retention=0.25")(model) as session:
        ids = model.generate(**inputs, max_new_tokens=64)
    print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(session.summary())


if __name__ == "__main__":
    main(sys.argv[1:])
