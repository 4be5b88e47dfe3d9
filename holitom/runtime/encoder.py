"""Watching a model encode its videos: how they will lie in the prompt, and which patches its vision tower looks at.

The layouts are written down on the tensors they describe. Whoever hands these tensors on, in whatever container, hands
on the layouts as well; tensors without them are refused where they meet a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holitom.methods.base import Method
from holitom.models.base import Adapter, PatchRecord, VideoLayout
from holitom.runtime.attention import attention_of_first, attention_received, watch
from holitom.runtime.method_patch import bound_arguments
from holitom.runtime.thread import Encoding, here
from holitom.runtime.tower import TowerPass

if TYPE_CHECKING:
    from holitom.runtime.call import Call

_MARK = "_holitom_layouts"


def layouts_of(encoded: Any) -> list[VideoLayout] | None:
    """The layouts that were written down on what an encoder returned; None where any of its tensors has none."""
    layouts: list[VideoLayout] = []
    due: tuple[Any, int] | None = None  # tensors that describe their videos together follow each other
    for tensor in _features(encoded):
        mark = getattr(tensor, _MARK, None)
        if mark is None:
            return None
        whole, number, total = mark
        if (due is None) != (number == 0) or (due is not None and due != (id(whole), number)):
            return None
        if number == 0:
            layouts += whole
        due = None if number + 1 == total else (id(whole), number + 1)
    return layouts if due is None and layouts else None


def with_layouts(encoded: Any, layouts: list[VideoLayout]) -> Any:
    """An encoder output with the layouts of its videos written down, for videos that were encoded in another way."""
    tensors = _features(encoded)
    if len(tensors) == len(layouts):
        for tensor, layout in zip(tensors, layouts, strict=True):
            setattr(tensor, _MARK, ([layout], 0, 1))
    else:
        for number, tensor in enumerate(tensors):
            setattr(tensor, _MARK, (layouts, number, len(tensors)))
    return encoded


def _features(encoded: Any) -> Sequence[Tensor]:
    features = getattr(encoded, "pooler_output", encoded)
    features = [features] if isinstance(features, Tensor) else features
    if not isinstance(features, list | tuple) or not all(isinstance(each, Tensor) for each in features):
        return []
    return features


def note_arguments(call: Call, arguments: dict[str, Any]) -> None:
    """Notes what a model was called with, by name, and the layouts of videos that were encoded before.

    Raises:
        ValueError: for what cannot be compressed.
    """
    adapter = call.session.adapter
    adapter.check(arguments)
    call.ids, call.mask = arguments.get("input_ids"), arguments.get("attention_mask")
    encoded = arguments.get("mm_encoder_outputs")
    if isinstance(encoded, dict):
        encoded = encoded.get(adapter.modality)
    pixels = arguments.get("pixel_values_videos") if adapter.modality == "video" else None
    if call.ids is None and (encoded is not None or pixels is not None):
        raise ValueError(
            "a video that comes with inputs_embeds cannot be compressed, because only token ids say where it "
            "stands in the prompt: give input_ids instead, or leave the session for this call"
        )
    if encoded is not None:  # generate() repeats what it has encoded for beams, accelerate moves it: other tensors
        call.layouts = layouts_of(encoded)
        if call.layouts is None and call.generation is not None:
            call.layouts = call.generation.layouts


def encode(
    adapter: Adapter,
    method: Method,
    encoder: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    owner: object,
    timed: AbstractContextManager[Any] | None = None,
) -> tuple[Any, list[VideoLayout]]:
    """Calls a model's encoder of videos under observation, with the method's stage inside the vision tower.

    Args:
        adapter: of the model.
        method: the one at work.
        encoder: the model's method that encodes videos.
        args: its positional arguments.
        kwargs: its named arguments.
        owner: whose watching of attention modules it is, which ends with :func:`~holitom.runtime.attention.release`.
        timed: around the encoder's own work.

    Returns:
        What the encoder returned, with the layouts of its videos written down; and these layouts.
    """
    needs = method.needs
    arguments = bound_arguments(encoder, args, kwargs)
    real, received, keys = adapter.patch_mask(arguments), list[Tensor](), list[Tensor]()

    def observer(query: Tensor, key: Tensor, scale: float) -> None:
        if "scores" in needs:
            of_class = adapter.class_token
            received.append(
                attention_of_first(query, key, scale) if of_class else attention_received(query, key, scale, real)
            )
        if "keys" in needs:
            keys.append(key.float().mean(1))

    outer, here.encoding = here.encoding, Encoding()
    last = adapter.vision_attention(arguments)
    if last is not None and needs & {"scores", "keys"}:
        here.encoding.observers[last] = observer
        watch(last, owner)
    described = adapter.tower(arguments, _prompt())
    if described is None and "tower" in method.stages:
        raise TypeError(
            f"{type(adapter).__name__} does not describe its vision tower, inside which {method.name} merges: "
            "override tower()"
        )
    if getattr(method, "stock", False):
        described = None
    tower = None if described is None else TowerPass(method, described)
    here.encoding.tower = tower
    if tower is not None:
        here.encoding.observers |= tower.observers
        for module in {*tower.routed, *tower.observers}:
            watch(module, owner)
    try:
        with timed or nullcontext(), tower or nullcontext():
            output = encoder(*args, **kwargs)
    finally:
        here.encoding = outer
    with torch.no_grad():
        layouts = adapter.layouts(output, arguments, PatchRecord(_join(received), _join(keys)))
    if tower is not None:
        layouts = tower.noted(layouts)
        if described is not None and described.unread and getattr(output, "last_hidden_state", None) is not None:
            output.last_hidden_state = None  # of blocks that did not run: nobody reads it, and it would be wrong
    return with_layouts(output, layouts), layouts


def _prompt() -> tuple[Tensor, Tensor] | None:
    """(B, Q) ids of the prompt that videos are encoded for, and what of them is real, on the CPU, where known."""
    asking = here.call if here.call is not None and here.call.ids is not None else here.generation
    ids, mask = (None, None) if asking is None else (asking.ids_on_host, asking.mask_on_host)
    if ids is None:
        return None
    known = mask is not None and mask.shape[1] >= ids.shape[1]
    return ids, mask[:, -ids.shape[1] :] if known else torch.ones_like(ids, dtype=torch.bool)  # type: ignore[index]


def _join(chunks: list[Tensor]) -> Tensor | None:
    """Frames of one size as (F, P, ...), others one after the other as (1, total, ...)."""
    if not chunks:
        return None
    if len({chunk.shape[1] for chunk in chunks}) == 1:
        return torch.cat(chunks)
    return torch.cat([chunk.flatten(0, 1) for chunk in chunks])[None]
