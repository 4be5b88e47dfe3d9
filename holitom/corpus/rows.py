"""One row of the output: a question about a video, its answer, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """What became of one question about one video.

    What all questions of a video share (decoding, its prefix, the prefix's FLOPs and bytes) is written in the row of
    the first one and is 0 in the others, so that columns can be summed.

    Args:
        path: the video as the source names it; bytes that are no UTF-8 as ``\\xff``.
        question: what was asked.
        answer: None where there is an error.
        prompt_tokens: tokens of the full prompt, text and visual, before compression.
        visual_tokens_in: visual tokens of the full prompt.
        visual_tokens_out: visual tokens that entered the LLM.
        seconds_decode: in a worker, while the model was busy with other videos.
        seconds_preprocess: in a worker as well.
        seconds_prefix: vision tower, compression, and the LLM up to the question.
        seconds_answer: this row's share of its batch's.
        prefill_flops: FLOPs of the language model, as it ran; None where the model's shape is not known.
        full_prefill_flops: the same without compression.
        paper_flops: by the paper's formula, of visual tokens alone, as they ran.
        full_paper_flops: the same without compression.
        kv_bytes: bytes of the KV cache, as it ran; None where the model's shape is not known.
        full_kv_bytes: the same without compression.
        warning: what is wrong with a video of which only a part could be read.
        error: why there is no answer.
        model: that answered, or would have.
    """

    path: str
    question: str
    answer: str | None = None
    prompt_tokens: int | None = None
    visual_tokens_in: int | None = None
    visual_tokens_out: int | None = None
    seconds_decode: float | None = None
    seconds_preprocess: float | None = None
    seconds_prefix: float | None = None
    seconds_answer: float | None = None
    prefill_flops: int | None = None
    full_prefill_flops: int | None = None
    paper_flops: int | None = None
    full_paper_flops: int | None = None
    kv_bytes: int | None = None
    full_kv_bytes: int | None = None
    warning: str | None = None
    error: str | None = None
    model: str | None = None

    @property
    def key(self) -> Key:
        """What makes it one row and not another."""
        return self.path, self.question

    @property
    def entering(self) -> int | None:
        """Tokens that entered the LLM, text and visual."""
        if self.prompt_tokens is None or self.visual_tokens_in is None or self.visual_tokens_out is None:
            return None
        return self.prompt_tokens - self.visual_tokens_in + self.visual_tokens_out

    def as_dict(self) -> dict[str, Any]:
        """The columns, in order."""
        return asdict(self)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Row:
        """A row that was written, also by a version that knew more columns."""
        return cls(**{name: columns[name] for name in COLUMNS if name in columns})


COLUMNS = tuple(field.name for field in fields(Row))
TEXT = frozenset({"path", "question", "answer", "warning", "error", "model"})
"""The columns of text; those that begin with ``seconds`` are floating point, all others whole numbers."""
