"""What answers questions, whoever computes: one encode of a video serves all that is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holitom.corpus.reading import Reader, Video


@dataclass(frozen=True)
class Counts:
    """Tokens of one prompt and what they cost, by the columns of :class:`~holitom.corpus.rows.Row`.

    The costs are None where the model's shape is not known.

    Args:
        prompt_tokens: tokens of the full prompt.
        visual_tokens_in: visual tokens of the full prompt.
        visual_tokens_out: visual tokens that enter the LLM.
        prefill_flops: FLOPs of the prefill as it ran.
        full_prefill_flops: the same without compression.
        paper_flops: by the paper's formula, of visual tokens alone, as they ran.
        full_paper_flops: the same without compression.
        kv_bytes: bytes of the KV cache as it ran.
        full_kv_bytes: the same without compression.
    """

    prompt_tokens: int
    visual_tokens_in: int
    visual_tokens_out: int
    prefill_flops: int | None = None
    full_prefill_flops: int | None = None
    paper_flops: int | None = None
    full_paper_flops: int | None = None
    kv_bytes: int | None = None
    full_kv_bytes: int | None = None


@dataclass(frozen=True)
class Reply:
    """An answer, and the counts of its prompt. Tokens are those of the whole prompt; costs are less what was shared."""

    text: str
    counts: Counts


class Encoded(Protocol):
    """A video that has been encoded: whatever the engine answers from, and for each question how long its prompt is."""

    @property
    def lengths(self) -> list[int]:
        """Tokens that enter the LLM for each question, by which batches are made."""

    @property
    def warning(self) -> str | None:
        """What was found to be wrong with the video while it was encoded."""


class Engine(Protocol):
    """What a run needs of a model."""

    together: bool
    """Whether several rows may stand in one batch."""

    def encode(self, video: Video) -> Encoded:
        """Turns a video into what all its questions share: here, a compressed prefix in a KV cache."""

    def answer(self, rows: Sequence[tuple[Any, int]], shared: Sequence[bool]) -> list[Reply]:
        """Answers questions as one batch.

        Args:
            rows: for each, the encoded video and the question's number.
            shared: for each row, whether an earlier row of the run has paid for its video's prefix already.
        """

    def close(self) -> None:
        """Gives back what the engine holds."""


class EngineFactory(Protocol):
    """How to make an engine, here or, pickled, somewhere else, and what prepares videos for it."""

    def __call__(self) -> Engine:
        """Loads the model."""

    def reader(self, questions: Sequence[str], frames: int | None) -> Reader:
        """What worker processes do with each video before the engine gets it."""
