"""What compression changes on videos without labels: answers and first tokens beside the full ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holitom.evaluation.results import Log
from holitom.evaluation.run import UNCOMPRESSED, first_word, label
from holitom.evaluation.statistics import DRAWS, Interval, interval_of
from holitom.extras import PARQUET, require
from holitom.generation import encode, generate, on_device_of, pixels_of, with_encoded
from holitom.methods.base import Method
from holitom.pipeline import Pipeline
from holitom.resume import whole_file
from holitom.runtime import Session, question_for
from holitom.video import Clip, read_video


@dataclass(frozen=True)
class Comparison:
    """One question about one video under one method, beside the answer to the full prompt.

    Args:
        video: its name.
        question: the question.
        method: the method's text form.
        answer: what the compressed model said.
        full: what the uncompressed model said.
        agrees: whether both answers are the same words, whatever their case and punctuation.
        distance: of the first token's distributions: half the sum of the absolute differences, from 0 to 1.
        tokens: share of the visual tokens that entered the LLM.
    """

    video: str
    question: str
    method: str
    answer: str
    full: str
    agrees: bool
    distance: float
    tokens: float


@dataclass(frozen=True)
class Risk:
    """How much one method changes.

    Args:
        method: the method.
        disagreement: share of the answers that differ, with its 95 % interval.
        distance: mean distance of the first token's distributions.
        tokens: mean share of the visual tokens that entered the LLM.
        videos: how many videos.
        answers: how many answers.
    """

    method: Method
    disagreement: Interval
    distance: float
    tokens: float
    videos: int
    answers: int

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "disagreement": list(self.disagreement),
            "first_token_distance": self.distance,
            "tokens_entering": self.tokens,
            "videos": self.videos,
            "answers": self.answers,
        }


def compare(
    pipeline: Pipeline,
    questions: Iterable[tuple[str, str, str]],
    methods: Sequence[Method],
    log: Log,
    *,
    frames: int | None = None,
    max_new_tokens: int = 32,
    done: Callable[[str], None] = lambda _: None,
) -> list[Comparison]:
    """Asks every question in full and under every method. What is in the log already is not computed again.

    Args:
        pipeline: the model.
        questions: (name, path, question), those about one video after the other.
        methods: what to compare with the full prompt.
        log: of :class:`Comparison`, where rows go.
        frames: how many to sample of each video; None: the checkpoint's number.
        max_new_tokens: the longest answer.
        done: called with the name of the video after each question.

    Returns:
        All rows of the log.
    """
    known = {(row.video, row.question, row.method) for row in log.rows}
    video, read = None, ""
    for name, path, question in questions:
        left = [method for method in methods if (name, question, label(method)) not in known]
        if left:
            if video is None or read != path:
                clip, read = read_video(path, frames or pipeline.preprocessor.frames), path
                video = Encoded(pipeline, clip, methods)
            for row in video.compare(name, question, left, max_new_tokens):
                log.add(row)
        done(name)
    return list(log.rows)


class Encoded:
    """A video that is encoded once for all questions and methods.

    Args:
        pipeline: the model.
        clip: the decoded video.
        methods: those to come.
    """

    def __init__(self, pipeline: Pipeline, clip: Clip, methods: Sequence[Method]) -> None:
        self.pipeline, self.clip = pipeline, clip
        self.needs = frozenset[Any]().union(*(method.needs for method in methods))
        self.encoded: Any = None

    def compare(
        self, name: str, question: str, methods: Sequence[Method], max_new_tokens: int = 32
    ) -> list[Comparison]:
        """One question, in full and under every method.

        Args:
            name: what rows call the video.
            question: about it.
            methods: what to compare with the full prompt.
            max_new_tokens: the longest answer.
        """
        model = self.pipeline.model
        inputs = on_device_of(model, self.pipeline.preprocessor(question, self.clip))
        if self.encoded is None:
            self.encoded = encode(model, pixels_of(model, inputs), self.needs)
        prompt = with_encoded(model, inputs, self.encoded)
        full, first, _ = self._answer(prompt, question, UNCOMPRESSED, max_new_tokens)
        rows = []
        for method in methods:
            said, ours, tokens = self._answer(prompt, question, method, max_new_tokens)
            distance = float((ours - first).abs().sum() / 2)
            agrees = _words(said) == _words(full)
            rows.append(Comparison(name, question, label(method), said, full, agrees, distance, tokens))
        return rows

    def _answer(
        self, prompt: dict[str, Any], question: str, method: Method, max_new_tokens: int
    ) -> tuple[str, torch.Tensor, float]:
        """The answer, the first token's distribution (vocabulary,), and the share of the tokens that entered."""
        options: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
        tokenizer = self.pipeline.preprocessor.tokenizer
        asked = question_for(method, tokenizer, prompt["input_ids"], question)
        with Session(method, self.pipeline.model, question=asked) as session:
            made = generate(session, prompt, max_new_tokens=max_new_tokens, **options)
            whole, entering, _ = session.summary().visual_tokens
        text = tokenizer.decode(made.tokens[0], skip_special_tokens=True).strip()
        return text, made.output.logits[0][0].float().softmax(-1), entering / whole


def _words(text: str) -> list[str]:
    return [word for each in text.split() if (word := first_word(each))]


def risk(rows: Sequence[Comparison], method: Method) -> Risk:
    """How much a method changes, over all its rows.

    The interval resamples videos, because answers about one video go together. Where no answer differs it reaches up to
    what ``0.05`` would still allow for as many videos (1 - 0.05 ** (1 / videos)).

    Raises:
        ValueError: when there is no row of the method.
    """
    mine = [row for row in rows if row.method == label(method)]
    if not mine:
        raise ValueError(f"nothing was compared under {label(method)}")
    videos = sorted({row.video for row in mine})
    place = {video: number for number, video in enumerate(videos)}
    counts = np.zeros((len(videos), 2))
    for row in mine:
        counts[place[row.video]] += (not row.agrees, 1)
    value = float(counts[:, 0].sum() / counts[:, 1].sum())
    picks = np.random.default_rng(0).integers(0, len(videos), (DRAWS, len(videos)))
    interval = interval_of(value, counts[picks, 0].sum(1) / counts[picks, 1].sum(1))
    return Risk(
        method,
        interval if value else interval._replace(high=1 - 0.05 ** (1 / len(videos))),
        float(np.mean([row.distance for row in mine])),
        float(np.mean([row.tokens for row in mine])),
        len(videos),
        len(mine),
    )


def smallest(risks: Sequence[Risk], bound: float) -> Risk | None:
    """The method with the fewest tokens whose disagreement stays under a bound, and that of every larger share of the
    same method too; None where there is none.

    Args:
        risks: of methods at several retentions.
        bound: the largest share of answers that may differ.
    """
    found: list[Risk] = []
    for name in dict.fromkeys(each.method.name for each in risks):
        family = sorted((each for each in risks if each.method.name == name), key=lambda each: -each.tokens)
        for each in family:
            if each.disagreement.value > bound:
                break
            found.append(each)
    return min(found, key=lambda each: each.tokens, default=None)


def write_rows(rows: Sequence[Comparison], path: Path) -> None:
    """All rows as a Parquet file.

    Raises:
        ImportError: without pyarrow, which the extra ``holitom[corpora]`` installs.
    """
    require(*PARQUET)
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(path) as part:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), part)
