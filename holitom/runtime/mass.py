"""Proportional attention: a merged token counts as often as the tokens that it stands for.

The log of each token's mass is added to its attention logits, in every layer and at every step that sees it (ToMe,
arXiv 2210.09461, section 3). It goes into the attention mask, one number for each key. So attention runs with a mask of
floating point numbers (B, 1, Q, L): SDPA has no flash kernel for that, and the mask of a prompt is as large as one
head's attention matrix; that of a decode step has one row. In bfloat16 the log of a large mass is off by up to 3 %.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.merge import Merge
from holitom.models.base import Adapter, kinds_of_layers


def require_mass(adapter: Adapter) -> None:
    """Raises ValueError where the number of tokens that one stands for cannot count in a model's attention."""
    config: Any = adapter.decoder.config
    kind, kinds = config._attn_implementation, kinds_of_layers(config)
    if not adapter.inner or kinds != {"full_attention"}:
        raise ValueError(
            f"mass=True needs decoder layers that all see every token; {type(adapter.model).__name__} has others "
            f"({', '.join(sorted(kinds))}): leave mass out"
        )
    if kind not in ("sdpa", "eager"):
        raise ValueError(
            f"mass=True adds a number to the attention logits of each key, which {kind!r} attention cannot: load the "
            "model with attn_implementation='sdpa', or leave mass out"
        )


def may_merge(merge: Merge) -> bool:
    """Whether an output of a map may have several sources; on a GPU also where that is not known."""
    return merge.shares is not None or merge._kept != merge.outputs


def masses(merge: Merge, of: Tensor | None = None) -> Tensor:
    """How many sources each output of a map stands for; one that feeds k outputs counts 1/k in each.

    Args:
        merge: a map of S sources to M outputs.
        of: (S,) floating point, what each source counts; None: 1.

    Returns:
        (M,) float32, whose sum is what the sources count that are not dropped. No synchronisation.
    """
    count, more = torch.ones_like(merge.weight) if of is None else of.to(merge.weight), merge.shares
    if more is not None:
        count = count / torch.ones_like(count).index_add_(0, more.source, torch.ones_like(more.weight))
    total = torch.zeros(merge.outputs + 1, dtype=torch.float32, device=count.device)  # the last: what is dropped
    total.index_add_(0, merge.target % (merge.outputs + 1), count)
    if more is not None:
        total.index_add_(0, more.output, count[more.source])
    return total[:-1]


def with_masses(
    known: Tensor | None, embeds: Tensor, row: int, columns: Tensor | slice, merge: Merge | None
) -> Tensor | None:
    """Masses (B, Q) of tokens (B, Q, D), with those in some columns of a row set to what a map's outputs stand for."""
    if merge is None:
        return known
    known = embeds.new_ones(embeds.shape[:2], dtype=torch.float32) if known is None else known
    known[row, columns] = masses(merge).to(known.device)
    return known


def weighed_mask(mask: Tensor | None, mass: Tensor, length: int, hidden: Tensor) -> Tensor:
    """An attention mask with the masses of keys in it.

    Args:
        mask: (B or 1, 1, Q, L) bool (True: seen) or additive; None: every query sees what is not behind it.
        mass: (B, P) float32, logs of the first P keys' masses; those behind have mass 1.
        length: L.
        hidden: (B, Q, D) the layer's input, of whose dtype the mask is.

    Returns:
        (B, 1, Q, L), additive.

    Raises:
        ValueError: for a mask of another form, as other attention functions take it.
    """
    queries, device = hidden.shape[1], hidden.device
    if mask is None:
        mask = torch.arange(length, device=device) <= torch.arange(length - queries, length, device=device)[:, None]
        mask = mask[None, None]
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[-1] != length:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"mass=True needs an attention mask of one number for each query and key, got {shape} for {length} keys: "
            "load the model with attn_implementation='sdpa', or leave mass out"
        )
    bias = pad(mass, (0, length - mass.shape[1])).to(device, hidden.dtype)[:, None, None]
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(hidden.dtype).min)
    return mask + bias
