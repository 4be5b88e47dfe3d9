"""Weights of 8 bits, by torchao: quantised while they are loaded. See offline.py for the arguments.

pip install torchao
python examples/eight_bit.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from offline import given
from torchao.quantization import Int8WeightOnlyConfig
from transformers import TorchAoConfig

from holitom import Pipeline


def main(arguments: Sequence[str]) -> None:
    """Prints the answer with a quarter of the visual tokens."""
    film, question, checkpoint = given(arguments)
    pipeline = Pipeline.from_pretrained(checkpoint, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
    answer = pipeline.ask(film, question, "spread:retention=0.25")
    print(answer.text)
    print(answer.summary)


if __name__ == "__main__":
    main(sys.argv[1:])
