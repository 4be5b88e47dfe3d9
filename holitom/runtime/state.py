"""What must be remembered of a compressed prompt while its KV cache lives."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Stage:
    """The layers from ``layer`` on (up to the next stage's) share one sequence length.

    Args:
        layer: first decoder layer of the stage.
        mask: (B, L) bool, which tokens of those layers' KV cache are real (not padding).
        shortened: whether a prompt has lost tokens in front of ``layer``; else its sequence is the stage before's.
    """

    layer: int
    mask: Tensor
    shortened: bool = False

    def past(self, length: int) -> Tensor:
        """(B, length) bool for the first ``length`` cached tokens: the cache may have been cropped at its end."""
        return self.mask[:, :length]


@dataclass(eq=False)
class CacheState:
    """The stages of one KV cache, and the number of columns by which its first layer is shorter than the prompt.

    ``get_seq_length()`` without a layer then answers in tokens of the full prompt, which is what ``generate`` counts
    in when it slices the ids of a further turn; with a layer it answers for the cache as it is.
    """

    stages: list[Stage]
    dropped: int = 0
    covered: bool = False

    @classmethod
    def begin(cls, cache: Any, mask: Tensor | None, new: Tensor, layers: tuple[int, ...]) -> CacheState:
        """The state of a cache in front of its first compressed prompt: it may hold turns of text already.

        Args:
            mask: (B, past + Q) where it is known. new: (B, Q) bool. layers: the first layers of the stages.
        """
        past, width = cached_length(cache, 0), new.shape[1]
        known = new.new_ones(new.shape[0], past)
        if past and mask is not None and mask.dim() == 2 and mask.shape[1] >= past + width:
            known = mask[:, -past - width : -width].to(new.device).bool()
        return cls([Stage(layer, known) for layer in layers])

    def cover(self, cache: Any) -> None:
        """Puts the full-length answer in front of the cache's own ``get_seq_length``."""
        if self.covered:
            return
        known, own, self.covered = weakref.ref(cache), type(cache).get_seq_length, True

        def get_seq_length(layer_idx: int | None = None) -> Any:
            if layer_idx is not None:
                return own(known(), layer_idx)
            length = own(known())
            return length + self.dropped if length else 0

        cache.get_seq_length = get_seq_length

    def uncover(self, cache: Any) -> None:
        """Restores the cache's own ``get_seq_length``."""
        if self.covered:
            del cache.get_seq_length
            self.covered = False

    def mask(self, stage: Stage, cache: Any, new: Tensor) -> Tensor:
        """(B, past + Q) bool: the stage's cached tokens and the new ones.

        Raises:
            ValueError: when the batch has another number of rows than the cache was filled with.
        """
        if new.shape[0] != stage.mask.shape[0]:
            raise ValueError(
                f"this KV cache holds {stage.mask.shape[0]} compressed prompts, but the batch now has {new.shape[0]} "
                "rows: give generate() the whole batch again, or start from a new cache"
            )
        return torch.cat([stage.past(cached_length(cache, stage.layer)).to(new.device), new], dim=1)


def cached_length(cache: Any, layer: int) -> int:
    """The number of tokens that a layer of the cache holds; 0 before its first use.

    Layers of linear attention hold a state and no tokens; the next layer of attention answers for them.
    """
    if cache is None:
        return 0
    counting = (held for held in cache.layers[layer:] if hasattr(held, "get_seq_length"))
    found = next(counting, None)
    return 0 if found is None else int(found.get_seq_length())


def new_tokens(mask: Tensor | None, embeds: Tensor) -> Tensor:
    """(B, Q) bool: which tokens of this call are real, from whatever mask the decoder was given.

    Raises:
        ValueError: for a mask that does not say it.
    """
    batch, width = embeds.shape[:2]
    if mask is None or width == 1:
        return torch.ones(batch, width, dtype=torch.bool, device=embeds.device)
    if mask.dim() == 2 and mask.shape[1] >= width:
        return mask[:, -width:].to(embeds.device).bool()
    if mask.dim() == 4:  # made by generate() for a static cache: the last token's row shows what is padding
        row = mask[:, 0, -1]
        real = row if row.dtype == torch.bool else row == 0
        if bool(real[:, width:].any()):
            raise ValueError(
                "a static cache that already holds tokens cannot take a further compressed prompt: use the default "
                "(dynamic) cache for several turns"
            )
        return real[:, :width].expand(batch, -1).to(embeds.device).bool()
    raise ValueError(f"cannot read an attention mask of shape {tuple(mask.shape)} for {width} tokens: give a 2-D mask")
