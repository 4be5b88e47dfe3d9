"""What one compressed prompt cost, beside the same prompt uncompressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch

from .flops import Flops, check_per_layer, decode_flops, prefill_flops
from .memory import activation_peak_bytes, kv_cache_bytes
from .paper import paper_flops
from .shape import AttentionShape, ModelShape


@dataclass(frozen=True)
class Cost:
    """The cost of one or several prompts in the language model.

    Attributes:
        prompt_tokens: tokens that enter the first layer, text and visual, summed over the samples.
        visual_tokens: those of them that are visual.
        paper_flops: prefill by the paper's formula, visual tokens alone, a multiply-add counted once.
        prefill_flops: prefill counted exactly: all tokens, attention over the pairs that the causal mask lets through,
            one position through the head, a multiply-add counted twice.
        decode_flops: the first generated token behind this prompt, counted exactly.
        kv_cache_bytes: keys and values after prefill.
        activation_peak_bytes: activations at the peak of prefill, samples one after the other (the largest); None
            where it is not known.
    """

    prompt_tokens: int
    visual_tokens: int
    paper_flops: int
    prefill_flops: int
    decode_flops: int
    kv_cache_bytes: int
    activation_peak_bytes: int | None


@dataclass(frozen=True)
class CostReport:
    """The cost of a batch of prompts as it ran, and as it would have been uncompressed.

    Attributes:
        full: uncompressed.
        compressed: as it ran.
        tokens_per_layer: text and visual tokens of each sample in each layer, as it ran.
        visual_per_layer: visual tokens of each sample in each layer, as it ran.
        vision: FLOPs of the vision tower and projector as they ran; None where not given.
        full_vision: the same without a stage inside the tower; None where that is ``vision``.
    """

    full: Cost
    compressed: Cost
    tokens_per_layer: tuple[tuple[int, ...], ...]
    visual_per_layer: tuple[tuple[int, ...], ...]
    vision: Flops | None = None
    full_vision: Flops | None = None

    @classmethod
    def of(
        cls,
        shape: ModelShape,
        prompt_tokens: Sequence[int],
        tokens_per_layer: Sequence[Sequence[int]],
        visual_per_layer: Sequence[Sequence[int]],
        dtype: torch.dtype | int = 2,
        *,
        attention: Literal["sdpa", "eager"] = "sdpa",
        vision: Flops | None = None,
        full_vision: Flops | None = None,
    ) -> CostReport:
        """Count what the samples of a batch cost, each without padding.

        Args:
            shape: the model.
            prompt_tokens: tokens of each sample's full prompt, text and visual, before compression.
            tokens_per_layer: for each sample, the tokens (text and visual) that each decoder layer processed.
            visual_per_layer: for each sample, how many of these were visual. The rest of layer 0 is text, which
                compression leaves alone; so the full prompt's visual tokens are the prompt less that text.
            dtype: of cache and activations, or the bytes of one element.
            attention: for the activation peak; "eager" keeps the scores.
            vision: FLOPs of the vision tower, from :func:`~holitom.cost.vision_flops`, to report beside.
            full_vision: the same for the untouched tower, where a method's stage inside it or blocks that nobody reads
                make a difference.

        Raises:
            ValueError: where lists do not fit together; the message names the sample.
        """
        if not prompt_tokens or not len(prompt_tokens) == len(tokens_per_layer) == len(visual_per_layer):
            raise ValueError(
                "prompt_tokens, tokens_per_layer and visual_per_layer need one entry for each sample, got "
                f"{len(prompt_tokens)}, {len(tokens_per_layer)} and {len(visual_per_layer)}"
            )
        ran, full = [], []
        for sample, (prompt, tokens, visual) in enumerate(
            zip(prompt_tokens, tokens_per_layer, visual_per_layer, strict=True)
        ):
            tokens = check_per_layer(shape, tokens, f"tokens_per_layer[{sample}]", minimum=1)
            visual = check_per_layer(shape, visual, f"visual_per_layer[{sample}]", minimum=0)
            if any(v > n for n, v in zip(tokens, visual, strict=True)):
                raise ValueError(f"sample {sample}: visual_per_layer holds more tokens than tokens_per_layer")
            if prompt < tokens[0]:
                raise ValueError(
                    f"sample {sample}: prompt_tokens is {prompt}, below the {tokens[0]} that entered layer 0"
                )
            ran.append((tokens, visual))
            text = tokens[0] - visual[0]
            full.append(((prompt,) * shape.depth, (prompt - text,) * shape.depth))
        return cls(
            full=_cost(shape, full, dtype, attention),
            compressed=_cost(shape, ran, dtype, attention),
            tokens_per_layer=tuple(tokens for tokens, _ in ran),
            visual_per_layer=tuple(visual for _, visual in ran),
            vision=vision,
            full_vision=full_vision,
        )

    @property
    def ratios(self) -> dict[str, float | None]:
        """Compressed over full for each figure of :class:`Cost`, 0.1 for a tenth; None where nothing is to divide.

        ``vision_flops`` is that of the vision tower, ``time_to_first_token_flops`` that with the tower in both; None
        where the tower's FLOPs were not given.
        """
        found: dict[str, float | None] = {}
        for field in fields(Cost):
            whole, part = getattr(self.full, field.name), getattr(self.compressed, field.name)
            found[field.name] = part / whole if whole else None
        found["vision_flops"] = found["time_to_first_token_flops"] = None
        if self.vision is not None:
            tower, full_tower = self.vision.total, (self.full_vision or self.vision).total
            found["vision_flops"] = tower / full_tower
            whole = full_tower + self.full.prefill_flops
            found["time_to_first_token_flops"] = (tower + self.compressed.prefill_flops) / whole
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and lists, ready for JSON."""
        return {
            "full": asdict(self.full),
            "compressed": asdict(self.compressed),
            "ratios": self.ratios,
            "tokens_per_layer": [list(tokens) for tokens in self.tokens_per_layer],
            "visual_per_layer": [list(visual) for visual in self.visual_per_layer],
            "attention_pairs": "causal",
            "vision_flops": self.vision.as_dict() if self.vision else None,
            "full_vision_flops": full.as_dict() if (full := self.full_vision or self.vision) else None,
        }


def _cost(
    shape: ModelShape,
    samples: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    dtype: torch.dtype | int,
    attention: Literal["sdpa", "eager"],
) -> Cost:
    peak = None
    if all(isinstance(layer.attention, AttentionShape) for layer in shape.layers):
        peak = max(activation_peak_bytes(shape, tokens, dtype, attention=attention) for tokens, _ in samples)
    return Cost(
        prompt_tokens=sum(tokens[0] for tokens, _ in samples),
        visual_tokens=sum(visual[0] for _, visual in samples),
        paper_flops=sum(
            paper_flops(visual, shape.hidden, [layer.active_intermediate for layer in shape.layers])
            for _, visual in samples
        ),
        prefill_flops=sum(prefill_flops(shape, tokens).total for tokens, _ in samples),
        decode_flops=sum(decode_flops(shape, tokens).total for tokens, _ in samples),
        kv_cache_bytes=sum(kv_cache_bytes(shape, tokens, dtype) for tokens, _ in samples),
        activation_peak_bytes=peak,
    )
