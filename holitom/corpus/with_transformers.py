"""The engine for transformers: a compressed prefix for each video, questions batched behind prefixes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from holitom.corpus.costs import LayerTokens, with_costs
from holitom.corpus.engine import Counts, Reply
from holitom.corpus.reading import Prompts, Video
from holitom.cost import ModelShape, synchronize
from holitom.generation import generate, on_device_of
from holitom.methods.base import Method
from holitom.methods.baselines import Uncompressed
from holitom.models.placement import dtype_of
from holitom.pipeline import Pipeline
from holitom.runtime import PromptRecord, Session
from holitom.runtime.prefix import Prefix, hold, resume
from holitom.runtime.question import question_for, refuse_question


@dataclass(frozen=True, eq=False)
class PrefixedVideo:
    """A compressed prefix, for each question the ids that follow, and what was found to be wrong on the way."""

    prefix: Prefix
    rest: list[list[int]]
    warning: str | None = None

    @property
    def lengths(self) -> list[int]:
        """See :class:`Encoded`."""
        return [self.prefix.tokens + len(ids) for ids in self.rest]


class TransformersEngine:
    """Answers with transformers on this machine.

    Args:
        pipeline: model and preprocessor.
        method: None: uncompressed.
        max_new_tokens: the longest answer.
    """

    def __init__(self, pipeline: Pipeline, method: Method | None, max_new_tokens: int = 128) -> None:
        self.pipeline, self.max_new_tokens = pipeline, max_new_tokens
        self.session = Session(method or Uncompressed(), pipeline.model).attach()
        self.together = True
        self._shape = ModelShape.known(pipeline.model.config)

    def close(self) -> None:
        """Takes the method off the model."""
        self.session.remove()

    @torch.inference_mode()
    def encode(self, video: Video) -> PrefixedVideo:
        """See :class:`Engine`."""
        prompts: Prompts = video.content
        inputs = on_device_of(
            self.pipeline.model, {name: torch.from_numpy(each) for name, each in prompts.start.items()}
        )
        if prompts.question is None:
            refuse_question(self.session.method, "but a video is read once for all questions about it")
        else:
            whole = [[*inputs["input_ids"][0].tolist(), *prompts.rest[0]]]
            tokenizer = self.pipeline.preprocessor.tokenizer
            self.session.question = question_for(self.session.method, tokenizer, whole, prompts.question)
        began = time.perf_counter()
        prefix = hold(self.session, inputs)
        synchronize(inputs["input_ids"].device)
        video.seconds["prefix"] = time.perf_counter() - began
        self.together = prefix.stackable
        return PrefixedVideo(prefix, prompts.rest)

    @torch.inference_mode()
    def answer(self, rows: Sequence[tuple[Any, int]], shared: Sequence[bool]) -> list[Reply]:
        """See :class:`Engine`."""
        tokenizer = self.pipeline.preprocessor.tokenizer
        pad = tokenizer.pad_token_id
        inputs = resume(
            self.session,
            [video.prefix for video, _ in rows],
            [video.rest[number] for video, number in rows],
            tokenizer.eos_token_id or 0 if pad is None else pad,
        )
        made = generate(self.session, inputs, max_new_tokens=self.max_new_tokens, pad_token_id=pad)
        texts = tokenizer.batch_decode(made.tokens, skip_special_tokens=True)
        records = self.session.prompts
        counts = [
            self._count(record, video.prefix, paid)
            for record, (video, _), paid in zip(records, rows, shared, strict=True)
        ]
        return [Reply(text.strip(), count) for text, count in zip(texts, counts, strict=True)]

    def _count(self, record: PromptRecord, prefix: Prefix, shared: bool) -> Counts:
        """The counts of one row; what an earlier row has paid for is taken off, compressed and not."""
        visual = record.visual_by_layer
        plain = Counts(record.tokens, record.visual, visual[0])
        if self._shape is None:
            return plain
        dtype, depth = dtype_of(self.pipeline.model), len(record.by_layer)
        first = next(iter(self.session.layers), depth)
        held = [prefix.tokens if layer < first else 0 for layer in range(depth)]
        ran = LayerTokens.of(record.by_layer, visual, held if shared else None)
        whole = [prefix.record.tokens] * depth if shared else None
        full = LayerTokens.of([record.tokens] * depth, [record.visual] * depth, whole)
        return with_costs(plain, ran, full, self._shape, dtype)
