"""How many tokens the layers of a KV cache hold, and for how many a static one has room."""

from __future__ import annotations

from typing import Any

_WHOLE = "_holitom_whole"  # on a layer: the length that it had before it was cut
_GRAIN = 128  # static layers are cut to multiples of this many tokens, so that few lengths are compiled


def counting_layer(cache: Any, layer: int) -> Any:
    """The layer of a cache that knows how many tokens a decoder layer holds; None where none does.

    Layers of linear attention hold a state and no tokens; the next layer of attention answers for them.
    """
    for held in cache.layers[layer:]:
        if hasattr(held, "get_seq_length"):
            return held
    return None


def cached_length(cache: Any, layer: int) -> int:
    """The number of tokens that a layer of the cache holds. Asks the device where only that knows (a static cache)."""
    held = None if cache is None else counting_layer(cache, layer)
    return 0 if held is None else int(held.get_seq_length())


def fixed_length(cache: Any, first: int, last: int) -> int | None:
    """The tokens for which a static cache has room in its layers from ``first`` up to ``last``; None for others."""
    held = () if cache is None else cache.layers[first:last]
    return max((layer.max_cache_len for layer in held if hasattr(layer, "max_cache_len")), default=None)


def cut_static(cache: Any, first: int, last: int, dropped: int) -> None:
    """Makes layers of a static cache shorter by what a prompt has lost, before their keys and values are allocated.

    So as many tokens can follow as without compression. Lengths are rounded up.
    """
    for held in () if cache is None else cache.layers[first:last]:
        if hasattr(held, "max_cache_len") and not (held.is_sliding or held.is_initialized):
            whole = vars(held).setdefault(_WHOLE, held.max_cache_len)
            held.max_cache_len = min(whole, -(-(whole - dropped) // _GRAIN) * _GRAIN)


def restore_static(cache: Any) -> None:
    """Gives layers that were cut their length again: the next prompt may be a longer one."""
    for held in cache.layers:
        if _WHOLE in vars(held):
            held.max_cache_len, held.is_initialized = vars(held).pop(_WHOLE), False


def require_tokens(cache: Any, lengths: list[int], model: str) -> None:
    """Refuses rows of different lengths behind what a cache holds, where some layers hold a state and no tokens.

    Convolutions and linear attention run over the padding between the two as if it were text.

    Args:
        cache: the KV cache, or None.
        lengths: tokens of each row of the coming call.
        model: the model's class.

    Raises:
        ValueError: naming the model and the lengths.
    """
    if cached_length(cache, 0) and not all(hasattr(layer, "get_seq_length") for layer in cache.layers):
        raise ValueError(
            f"{model} has layers whose state runs over all tokens, padding too, so the rows of a further turn must be "
            f"of one length; compression leaves {lengths} tokens: use a method with exact=True, or ask row by row"
        )
