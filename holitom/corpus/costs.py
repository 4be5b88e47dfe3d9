"""What a row cost in the language model, beside the same row uncompressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from holitom.corpus.engine import Counts
from holitom.cost import ModelShape, kv_cache_bytes, paper_flops, prefill_flops


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

    def costs(self, shape: ModelShape, dtype: torch.dtype | int) -> dict[str, int]:
        """FLOPs of the language model, those of its visual tokens by the paper's formula, and bytes of the KV cache."""
        widths = [layer.active_intermediate for layer in shape.layers]
        return {
            "prefill_flops": prefill_flops(shape, self.new, past_per_layer=self.past).total,
            "paper_flops": paper_flops(self.visual, shape.hidden, widths),
            "kv_bytes": kv_cache_bytes(shape, self.new, dtype),
        }


def with_costs(
    counts: Counts, ran: LayerTokens, full: LayerTokens, shape: ModelShape, dtype: torch.dtype | int
) -> Counts:
    """The counts with what the tokens cost as they ran, and in full."""
    whole = {f"full_{name}": cost for name, cost in full.costs(shape, dtype).items()}
    return replace(counts, **ran.costs(shape, dtype), **whole)
