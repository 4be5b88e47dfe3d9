"""FastV: an image is worth 1/2 tokens after layer 2 (Chen et al., ECCV 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from holitom.merge import Merge
from holitom.methods.base import Attention, Method
from holitom.ops import top_indexes
from holitom.tokens import SpanStates


@dataclass(frozen=True)
class FastV(Method):
    """Inside the LLM, drops the visual tokens that the last prompt token attends to least.

    Paper: https://arxiv.org/abs/2403.06764. In front of decoder layer K the mean over heads of the last token's
    attention in layer K-1 ranks the visual tokens; the best stay, in order, with their original positions (the
    official in-place variant). Every video of a prompt keeps its own share.

    Args:
        layer: K, an index or a share of the depth. Published: 2.
        inner_retention: share of the visual tokens that stay from there on: floor(V * inner_retention), at least 1.
            Published: 0.5.
        keep: the number of tokens that stay, instead of a share, as the official code takes it (at most V stay).
    """

    name: ClassVar[str] = "fastv"
    paper: ClassVar[str] = "https://arxiv.org/abs/2403.06764"
    venue: ClassVar[str] = "ECCV 2024"
    looks_at: ClassVar[str] = "attention"
    attention: ClassVar[Attention] = "last"

    layer: float | int = 2
    inner_retention: float = 0.5
    keep: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep={self.keep!r} is a number of tokens and must be at least 1")

    def merge_span(self, span: SpanStates) -> Merge:
        """Keeps the most attended tokens, in order. No synchronisation."""
        attention = span.require_attention("FastV")
        length = attention.numel()
        count = max(1, math.floor(length * self.inner_retention)) if self.keep is None else self.keep
        return Merge.keep(top_indexes(attention, min(count, length)), length)
