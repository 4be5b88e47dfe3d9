"""Asks the model inside the package the same question with several methods, and shows what each of them kept.

python examples/compare_methods.py
"""

from __future__ import annotations

from holitom import HoliTom, Method
from holitom.cli.loading import TINY
from holitom.methods import EVS, FastV, RandomDrop
from holitom.pipeline import Pipeline
from holitom.video import Clip
from holitom.video.synthetic import suite

METHODS: dict[str, Method | None] = {
    "uncompressed": None,
    "HoliTom": HoliTom(retention=0.10),
    "HoliTom without the inner stage": HoliTom(retention=0.10, layer=None),
    "HoliTom, exactly a tenth": HoliTom(retention=0.10, exact=True),
    "FastV": FastV(),
    "EVS, then FastV": EVS(retention=0.10) | FastV(),
    "random": RandomDrop(retention=0.10),
}


def main() -> None:
    """Prints one line for each method."""
    example = suite("test", 1)[0]
    question = example.questions[0]
    clip = Clip.from_frames(example.frames, fps=4)
    pipeline = Pipeline.from_pretrained(TINY)
    print(f"{question.text} (right: {question.answer})\n")
    print(f"{'':34}{'answer':>12}{'enter':>8}{'leave':>8}{'KV cache':>10}")
    for name, method in METHODS.items():
        answer = pipeline.ask(clip, question.text, method)
        _, entering, leaving = answer.summary.visual_tokens
        share = answer.summary.cost.ratios["kv_cache_bytes"]
        print(f"{name:34}{answer.text:>12}{entering:>8}{leaving:>8}{share:>10.1%}")


if __name__ == "__main__":
    main()
