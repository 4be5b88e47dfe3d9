"""What a vision tower's last layer attends to, seen at the door of vLLM's encoder attention.

The layer stays what it is, with its kernel; queries and keys are looked at on their way in, after rotary embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holitom.models.base import PatchRecord
from holitom.runtime.attention import attention_received

Gather = Callable[[Tensor], Tensor]


class PatchTap:
    """Shows the patch scores and keys that methods ask for.

    Args:
        attention: vLLM's ``MMEncoderAttention`` of the last used vision layer, called with queries and keys as
            (batch, tokens, heads * d) or (batch, tokens, heads, d).
        needs: what to show, of "scores" and "keys".
        ranks: over how many ranks the heads are split (tensor parallelism).
        total: sums a tensor over them.
    """

    def __init__(self, attention: Any, needs: frozenset[str], ranks: int, total: Gather) -> None:
        self.needs, self.ranks, self.total = needs, ranks, total
        self.heads, self.scale = int(attention.num_heads), float(attention.scale)
        self._seen: list[tuple[Tensor, Tensor]] | None = None
        self._copies: tuple[Tensor, Tensor] | None = None
        self._copying = False
        if needs & {"scores", "keys"}:
            attention.register_forward_pre_hook(self._see, with_kwargs=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks at what is encoded inside the block, until :meth:`record` has told of it."""
        self._seen = []
        try:
            yield
        finally:
            seen, self._seen = self._seen, None
        self._last = seen

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Copies what is encoded inside the block into memory that stays where it is.

        Around the capture of a CUDA graph: each replay then copies what it encodes. All graphs share the memory of the
        largest, which comes first.
        """
        self._copying = True
        try:
            yield
        finally:
            self._copying = False

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._seen is None and not self._copying:
            return
        named = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
        pair = named["query"], named["key"]
        if self._seen is not None:
            self._seen.append(pair)
        if self._copying:
            query, key = (self._rows(states) for states in pair)
            if self._copies is None or len(self._copies[0]) < len(query):
                self._copies = query.clone(), key.clone()
            for copy, states in zip(self._copies, (query, key), strict=True):
                copy[: len(states)].copy_(states)

    def record(self, frames: int, patches: int) -> PatchRecord:
        """The patches of what was encoded last: T frames of P patches.

        Returns:
            (T, P) attention received and (T, P, d) keys, mean over all heads of all ranks.
        """
        seen, self._last = self._last, []
        if not seen:
            return PatchRecord(None, None)
        query, key = (torch.cat([self._rows(pair[side]) for pair in seen]) for side in (0, 1))
        return self._record(query, key, frames, patches)

    def copied(self, first: int, frames: int, patches: int) -> PatchRecord:
        """The patches of one video among those that a CUDA graph has encoded last, as :meth:`record`.

        Args:
            first: rows of the videos before it.
            frames: T.
            patches: P.
        """
        if self._copies is None:
            return PatchRecord(None, None)
        query, key = (copy[first : first + frames * patches] for copy in self._copies)
        return self._record(query, key, frames, patches)

    def _record(self, query: Tensor, key: Tensor, frames: int, patches: int) -> PatchRecord:
        query, key = (rows.view(frames, patches, self.heads, -1).transpose(1, 2) for rows in (query, key))
        return patch_record(query, key, self.scale, self.needs, self.ranks, self.total)

    def _rows(self, states: Tensor) -> Tensor:
        """(batch, tokens, heads * d) or (batch, tokens, heads, d) -> (batch * tokens, heads, d)."""
        return states.reshape(states.shape[0] * states.shape[1], self.heads, -1)


def patch_record(
    query: Tensor, key: Tensor, scale: float, needs: frozenset[str], ranks: int, total: Gather
) -> PatchRecord:
    """Means over the heads of all ranks, of which each holds as many.

    Args:
        query: (T, H, P, d), this rank's heads.
        key: (T, H, P, d).
        scale: factor on the logits, as the model's attention has it.
        needs: what the method reads: ``"scores"``, ``"keys"``.
        ranks: how many processes share the heads.
        total: sums a tensor over the ranks.
    """

    def over_ranks(mean: Tensor) -> Tensor:
        return mean if ranks == 1 else total(mean) / ranks

    received = over_ranks(attention_received(query, key, scale)) if "scores" in needs else None
    keys = over_ranks(key.float().mean(1)) if "keys" in needs else None
    return PatchRecord(received, keys)
