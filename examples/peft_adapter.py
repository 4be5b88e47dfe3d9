"""A model with a LoRA adapter: give the PeftModel to the method. See offline.py for the arguments.

pip install peft
python examples/peft_adapter.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given, prepared
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

import holitom


def main(arguments: Sequence[str]) -> None:
    """Prints the answer of a model with a new adapter, which changes nothing yet."""
    film, question, checkpoint = given(arguments)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=8))
    inputs = prepared(processor, film, question).to(model.device, model.dtype)
    with holitom.parse("spread:retention=0.25")(tuned) as session:
        ids = tuned.generate(**inputs, max_new_tokens=64)
    print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(session.summary())


if __name__ == "__main__":
    main(sys.argv[1:])
