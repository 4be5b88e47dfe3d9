"""Asking a model the questions of many clips under several methods, each clip encoded once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from holitom.evaluation.results import Log, Row
from holitom.generation import encode, generate, on_device_of, pixels_of, repeated, with_encoded
from holitom.methods.base import Method, Need
from holitom.methods.baselines import Uncompressed
from holitom.methods.registry import spell
from holitom.pipeline import Pipeline
from holitom.runtime import Session, question_for
from holitom.video.chat import user_turn
from holitom.video.clip import Clip
from holitom.video.synthetic import SyntheticClip

UNCOMPRESSED = Uncompressed()


def label(method: Method) -> str:
    """How a method is called in results: its text form, or its repr where it is in no registry."""
    try:
        return spell(method)
    except (ValueError, TypeError):
        return repr(method)


def evaluate(
    pipeline: Pipeline,
    clips: Iterable[SyntheticClip],
    methods: Sequence[Method],
    log: Log,
    *,
    max_new_tokens: int = 4,
    name: Callable[[Method], str] = label,
    done: Callable[[str], None] = lambda _: None,
    refused: Callable[[Method, Exception], None] | None = None,
) -> list[Row]:
    """Answers every clip's questions under every method, all questions of a clip in one batch.

    The clip is encoded once for all methods with the same stage inside the vision tower, or none; each method then
    merges its features and the language model answers through ``generate()``, as in any other use. Rows already in the
    log are not computed again.

    Args:
        pipeline: model and preprocessor.
        clips: with their questions.
        methods: put :data:`UNCOMPRESSED` first to have something to compare with.
        log: where rows go.
        max_new_tokens: longest answer, in tokens.
        name: what rows call a method.
        done: called with the name of each finished clip.
        refused: called with a method that cannot do what it is asked for, which is then left out; None: raise.

    Returns:
        All rows of the log.
    """
    needs: frozenset[Need] = frozenset().union(*(method.needs for method in methods))
    methods, known = list(methods), {(row.clip, row.method) for row in log.rows}
    for clip in clips:
        left = [method for method in methods if (clip.name, name(method)) not in known]
        if left:
            inputs = _inputs(pipeline, clip)
            encoded: dict[Method | None, Any] = {}
        for method in left:
            try:
                tower = method.stage("tower")
                if tower not in encoded:
                    encoded[tower] = _encode(pipeline, inputs, needs, tower)
                row = _answer(pipeline, clip, method, inputs, encoded[tower], max_new_tokens)
            except (ValueError, TypeError) as error:
                if refused is None or method is UNCOMPRESSED:
                    raise
                refused(method, error)
                methods.remove(method)
                continue
            log.add(replace(row, method=name(method)))
        done(clip.name)
    return log.rows


def _inputs(pipeline: Pipeline, clip: SyntheticClip) -> dict[str, torch.Tensor]:
    """The batch of a clip's questions; the pixels of the first row stand for all."""
    frames = Clip.from_frames(clip.frames, source=clip.name)
    turns = [[user_turn(question.text, frames)] for question in clip.questions]
    return on_device_of(pipeline.model, pipeline.preprocessor.batch(turns))


def _encode(
    pipeline: Pipeline, inputs: dict[str, torch.Tensor], needs: frozenset[Need], tower: Method | None = None
) -> Any:
    rows, pixels = inputs["input_ids"].shape[0], pixels_of(pipeline.model, inputs)
    first = {name: value[: value.shape[0] // rows] for name, value in pixels.items()}
    return repeated(encode(pipeline.model, first, needs, tower=tower), rows)


def _answer(
    pipeline: Pipeline,
    clip: SyntheticClip,
    method: Method,
    inputs: dict[str, torch.Tensor],
    encoded: Any,
    max_new_tokens: int,
) -> Row:
    prompt = with_encoded(pipeline.model, inputs, encoded)
    tokenizer = pipeline.preprocessor.tokenizer
    asked = question_for(method, tokenizer, inputs["input_ids"], [question.text for question in clip.questions])
    with Session(method, pipeline.model, question=asked) as session:
        made = generate(session, prompt, max_new_tokens=max_new_tokens)
    answers = [first_word(text) for text in tokenizer.batch_decode(made.tokens, skip_special_tokens=True)]
    rows, summary = len(answers), session.summary()
    full, entering, _ = summary.visual_tokens
    flops: list[float | None] = [None, None]
    if summary.cost is not None:
        flops = [cost.prefill_flops / rows for cost in (summary.cost.compressed, summary.cost.full)]
    return Row(
        clip=clip.name,
        method=method.name,
        tasks=[question.task for question in clip.questions],
        answers=answers,
        right=[answer == question.answer for answer, question in zip(answers, clip.questions, strict=True)],
        visual_tokens=[count / rows for count in (full, entering, summary.mean_visual_tokens)],
        prefill_flops=flops[0],
        full_flops=flops[1],
        tower_share=None if summary.cost is None else summary.cost.ratios["vision_flops"],
        paper_share=None if summary.cost is None else summary.cost.ratios["paper_flops"],
    )


def first_word(text: str) -> str:
    """The first word of an answer, in small letters and without punctuation; "" for none."""
    words = text.strip().split()
    return words[0].strip(".,;:!?\"'").lower() if words else ""
