"""Asking a model the questions of many clips under several methods, each clip encoded once for all of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from holitom.evaluation.results import Log, Row
from holitom.methods.base import Method, Need
from holitom.methods.registry import spell
from holitom.pipeline import Pipeline, Uncompressed
from holitom.runtime import Session
from holitom.video.chat import user_turn
from holitom.video.clip import Clip
from holitom.video.prepare import to_device
from holitom.video.synthetic import SyntheticClip

UNCOMPRESSED = Uncompressed()


@dataclass(frozen=True)
class _Encode(Method):
    """Keeps everything, and has the vision tower show all that the methods to come will need."""

    name: ClassVar[str] = "encode"
    wanted: frozenset[Need] = frozenset()

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        """The needs of all methods together."""
        return self.wanted


def label(method: Method) -> str:
    """How a method is called in results: its text form, or "uncompressed"."""
    return method.name if isinstance(method, Uncompressed) else spell(method)


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

    The clip is encoded once; each method then merges its features and the language model answers through
    ``generate()``, as in any other use. Rows already in the log are not computed again.

    Args:
        methods: put :data:`UNCOMPRESSED` first to have something to compare with.
        log: where rows go. name: what rows call a method. done: told the name of each finished clip.
        refused: told of a method that cannot do what it is asked for, which is then left out; None: raise.

    Returns:
        All rows of the log.
    """
    needs: frozenset[Need] = frozenset().union(*(method.needs for method in methods))
    methods = list(methods)
    for clip in clips:
        left = [method for method in methods if (clip.name, name(method)) not in log]
        if left:
            inputs = _inputs(pipeline, clip)
            encoded = _encode(pipeline, inputs, needs)
        for method in left:
            try:
                row = _answer(pipeline, clip, method, inputs, encoded, max_new_tokens)
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
    model = pipeline.model
    device, dtype = model.get_input_embeddings().weight.device, next(model.parameters()).dtype
    return to_device(pipeline.preprocessor.batch(turns), device, dtype)


@torch.inference_mode()
def _encode(pipeline: Pipeline, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Any:
    base, rows = pipeline.model.base_model, inputs["input_ids"].shape[0]
    named = inspect.signature(base.get_video_features).parameters
    first = {
        name: value[: value.shape[0] // rows]
        for name, value in inputs.items()
        if name in named and name not in ("input_ids", "attention_mask")
    }
    with Session(_Encode(wanted=needs), pipeline.model):
        return base.get_video_features(**first, return_dict=True)


@torch.inference_mode()
def _answer(
    pipeline: Pipeline,
    clip: SyntheticClip,
    method: Method,
    inputs: dict[str, torch.Tensor],
    encoded: Any,
    max_new_tokens: int,
) -> Row:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    shared = copy.copy(encoded)  # each row of the batch gets the one encoded clip
    features = encoded.pooler_output
    copies = ids.shape[0]
    shared.pooler_output = features.repeat(copies, 1, 1) if isinstance(features, torch.Tensor) else [*features] * copies
    with Session(method, pipeline.model) as session:
        out = pipeline.model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_encoder_outputs={"video": shared},
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        summary = session.summary()
    said = pipeline.preprocessor.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    answers = [first_word(text) for text in said]
    full, entering, _ = summary.visual_tokens
    return Row(
        clip=clip.name,
        method=method.name,
        tasks=[question.task for question in clip.questions],
        answers=answers,
        right=[answer == question.answer for answer, question in zip(answers, clip.questions, strict=True)],
        visual_tokens=[count / copies for count in (full, entering, summary.mean_visual_tokens)],
        prefill_flops=summary.cost.compressed.prefill_flops / copies,
        full_flops=summary.cost.full.prefill_flops / copies,
    )


def first_word(text: str) -> str:
    """The first word of an answer, in small letters and without punctuation; "" for none."""
    words = text.strip().split()
    return words[0].strip(".,;:!?\"'").lower() if words else ""
