"""The hook in front of each decoder layer from the first inner stage on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from holitom.models.caching import cache_argument
from holitom.runtime.flight import Flight
from holitom.runtime.taps import observe, release

if TYPE_CHECKING:
    from holitom.runtime.session import Session


class LayerHook:
    """In front of one decoder layer: merges there, or passes on what an earlier stage has shortened."""

    def __init__(self, session: Session, layer: int) -> None:
        self.session, self.layer, self.merges = session, layer, layer in session.layers

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Replaces hidden states, masks and rotary embeddings; None leaves the call as it is."""
        session, flight = self.session, self.session.flight
        if flight is None or not session.active:
            return None
        if self.merges:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = self._merge(module, hidden, kwargs, flight)
            args, kwargs = (
                (hidden, *args[1:]) if args else args,
                kwargs if args else {**kwargs, "hidden_states": hidden},
            )
        if not flight.replaced:
            return None
        return args, {**kwargs, **{name: value for name, value in flight.replaced.items() if name in kwargs}}

    def _merge(self, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any], flight: Flight) -> Tensor:
        from transformers.masking_utils import create_causal_mask

        session, config = self.session, flight.decoder.config
        embeddings = flight.replaced.get("position_embeddings", kwargs["position_embeddings"])
        rejoined = False
        if flight.merging:
            if session.holding is not None:
                session.holding.stop(hidden, embeddings, flight)
            rejoined = flight.waiting is not None
            if rejoined:
                hidden, embeddings = flight.rejoin(hidden, embeddings)
            with session.stage("compression"):
                if session.method.attention == "coming":
                    self._look_ahead(module, hidden, embeddings, flight)
                hidden, embeddings = flight.merge_inside(self.layer, len(session.adapter.layers), hidden, embeddings)
        stage = flight.enter(self.layer)
        if not (stage.shortened or rejoined or session.method.compacts):
            return hidden  # the masks and positions in force are still true
        contiguous = (stage.mask.long().cumsum(1) - 1).clamp_(min=0)[:, -hidden.shape[1] :].to(hidden.device)
        if session.method.compacts and flight.positions.dim() == 2:
            embeddings = flight.decoder.rotary_emb(hidden, contiguous)
        mask = create_causal_mask(
            config=config,
            inputs_embeds=hidden,
            attention_mask=stage.mask.to(hidden.device),
            position_ids=None,
            layer_idx=self.layer,
            **{cache_argument(create_causal_mask): flight.cache},
        )
        # flash attention takes gaps in position ids for the borders of packed sequences; the rotary embeddings above
        # already hold the true positions, so later layers are shown contiguous ids
        flight.replaced = {
            "attention_mask": mask,
            "position_embeddings": embeddings,
            "position_ids": contiguous if flight.positions.dim() == 2 else flight.positions,
        }
        return hidden

    def _look_ahead(self, module: Any, hidden: Tensor, embeddings: Any, flight: Flight) -> None:
        """Runs the coming layer's attention just far enough to see its queries and keys."""

        def observer(query: Tensor, key: Tensor, scale: float) -> None:
            flight.observe(query, key, scale, self.layer - 1)
            raise _SeenEnough

        owner = object()
        observe(module.self_attn, owner, observer)
        try:
            with contextlib.suppress(_SeenEnough):
                module.self_attn(
                    hidden_states=module.input_layernorm(hidden),
                    position_embeddings=embeddings,
                    attention_mask=None,
                    **{cache_argument(module.self_attn.forward): None},
                )
        finally:
            release(owner)


class _SeenEnough(Exception):
    """Ends a look-ahead once queries and keys are known."""
