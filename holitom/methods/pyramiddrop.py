"""PyramidDrop: fewer visual tokens, the deeper the layer (Xing et al., CVPR 2025)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from holitom.merge import Merge
from holitom.methods.base import Attention, Method, check_layer, resolve_layer
from holitom.ops import top_indexes
from holitom.tokens import SpanStates, check_share


@dataclass(frozen=True)
class PyramidDrop(Method):
    """At several layers, drops the visual tokens that the last prompt token attends to least in the coming layer.

    Paper: https://arxiv.org/abs/2410.17247. At stage s the mean over heads of the coming layer's attention (its own
    norm, projections and rotary embedding) ranks the visual tokens; floor(V0 * share_s) stay, where V0 is the number
    that entered the LLM. Positions are renumbered after each stage. The official code does not work with grouped key
    heads; here they do.

    Args:
        layers_at: the layers in front of which tokens go: indexes, or shares of the depth (published: 8, 16 and 24 of
            32).
        shares: what stays after each, of the tokens that entered; at least one token does.
    """

    name: ClassVar[str] = "pyramiddrop"
    paper: ClassVar[str] = "https://arxiv.org/abs/2410.17247"
    venue: ClassVar[str] = "CVPR 2025"
    looks_at: ClassVar[str] = "attention"
    attention: ClassVar[Attention] = "coming"
    compacts: ClassVar[bool] = True

    layers_at: tuple[float | int, ...] = (0.25, 0.5, 0.75)
    shares: tuple[float, ...] = (0.5, 0.25, 0.125)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers_at) != len(self.shares) or not self.shares:
            raise ValueError(
                f"each stage has a layer and a share: got layers_at={self.layers_at!r} and shares={self.shares!r}"
            )
        for layer, share in zip(self.layers_at, self.shares, strict=True):
            check_layer("layers_at", layer)
            check_share("shares", share)
        if any(later > earlier for earlier, later in itertools.pairwise(self.shares)):
            raise ValueError(f"shares count from the tokens that entered and cannot grow: got {self.shares!r}")

    def layers(self, depth: int) -> tuple[int, ...]:
        """The layers of all stages.

        Raises:
            ValueError: when the model is too shallow to tell two stages apart.
        """
        layers = tuple(resolve_layer("layers_at", layer, depth) for layer in self.layers_at)
        if any(later <= earlier for earlier, later in itertools.pairwise(layers)):
            raise ValueError(f"layers_at={self.layers_at!r} means layers {layers} of {depth}: give ascending layers")
        return layers

    def merge_span(self, span: SpanStates) -> Merge:
        """Keeps the most attended tokens, in order. No synchronisation."""
        attention = span.require_attention("PyramidDrop")
        share = self.shares[self.layers(span.depth).index(span.layer)]
        count = max(1, math.floor(span.entered * share))
        return Merge.keep(top_indexes(attention, min(count, len(attention))), len(attention))
