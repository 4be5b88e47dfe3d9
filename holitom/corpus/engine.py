"""What answers questions, whoever computes: one encode of a video serves all that is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from holitom.corpus.reading import Reader, Video
from holitom.cost import ModelShape, kv_cache_bytes, paper_flops, prefill_flops


@dataclass(frozen=True)
class Counts:
    """Tokens of one prompt and what they cost; the costs are None where the model's shape is not known.

    Args:
        prompt: tokens of the full prompt.
        visual_in: visual tokens of the full prompt.
        visual_out: visual tokens that enter the LLM.
        prefill_flops: FLOPs of the prefill as it ran.
        full_prefill_flops: the same without compression.
        paper_flops: by the paper's formula, of visual tokens alone, as they ran.
        full_paper_flops: the same without compression.
        kv_bytes: bytes of the KV cache as it ran.
        full_kv_bytes: the same without compression.
    """

    prompt: int
    visual_in: int
    visual_out: int
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


@dataclass(frozen=True)
class LayerTokens:
    """Tokens in each decoder layer: those that one row brings, behind those that were there already.

    Args:
        new: for each layer.
        past: for each layer; all 0 for a row that pays for its video itself.
        visual: those of the new ones that are visual, for each layer.
    """

    new: list[int]
    past: list[int]
    visual: list[int]

    @classmethod
    def of(cls, tokens: Sequence[int], visual: Sequence[int], held: Sequence[int] | None) -> LayerTokens:
        """Of a prompt of so many tokens in each layer, of which ``held``, the visual ones too, are in the cache."""
        past = list(held) if held is not None else [0] * len(tokens)
        new = [count - before for count, before in zip(tokens, past, strict=True)]
        return cls(new, past, [0 if before else count for count, before in zip(visual, past, strict=True)])

    def flops(self, shape: ModelShape) -> int:
        """FLOPs of the language model."""
        return prefill_flops(shape, self.new, past_per_layer=self.past).total

    def paper_flops(self, shape: ModelShape) -> int:
        """FLOPs of its visual tokens by the paper's formula."""
        return paper_flops(self.visual, shape.hidden, [layer.active_intermediate for layer in shape.layers])

    def kv_bytes(self, shape: ModelShape, dtype: torch.dtype | int) -> int:
        """Bytes that it adds to the KV cache."""
        return kv_cache_bytes(shape, self.new, dtype)
