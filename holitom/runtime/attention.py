"""Observing queries and keys where attention is computed, without switching any layer to eager attention.

transformers looks its attention function up in ``ALL_ATTENTION_FUNCTIONS`` for each call. While somebody watches a
module, the functions in that table are wrapped by one that asks what is in progress *in this thread* for observers of
the module, shows them queries and keys, and then calls the original. Attention itself, its mask and its kernel stay
what they are.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holitom import kernels
from holitom.models import transformers_names as names
from holitom.ops.precision import as_given
from holitom.runtime.thread import here

if TYPE_CHECKING:
    from holitom.runtime.tower import TowerPass

_lock = threading.RLock()
_watched: weakref.WeakKeyDictionary[nn.Module, set[object]] = weakref.WeakKeyDictionary()
_FLAG = "_holitom_watched"  # on a module that is watched
_wrapped: dict[str, Callable[..., Any]] = {}
_HELD_BYTES = 1 << 27  # attention matrices held at a time while column means are taken
_CACHED_BYTES = 1 << 22  # on a CPU, whose cache is much faster than its memory


def watch(module: nn.Module, owner: object) -> None:
    """Lets observers see a module's queries and keys until :func:`release` of the same owner."""
    with _lock:
        _watched.setdefault(module, set()).add(owner)
        setattr(module, _FLAG, True)
        _install()


def release(owner: object) -> None:
    """Ends all watching by ``owner``; the last one restores transformers' table of attention functions."""
    with _lock:
        for module in list(_watched):
            _watched[module].discard(owner)
            if not _watched[module]:
                del _watched[module], module.__dict__[_FLAG]
        if not _watched:
            _restore()


def _install() -> None:
    table = names.attention_functions()
    for name in {*table.valid_keys(), "eager"} - _wrapped.keys():
        _wrapped[name] = table[name] = _wrapper(table.get(name))  # this table's own entry, above the shared one


def _restore() -> None:
    table = names.attention_functions()
    for name, wrapper in _wrapped.items():
        if table.get(name) is wrapper:
            del table[name]
    _wrapped.clear()


def _wrapper(original: Callable[..., Any] | None) -> Callable[..., Any]:
    def attention(module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        # eager attention has no entry of its own in the table: each model file brings a function of that name
        run = original or names.eager_attention(sys.modules[type(module).__module__])
        # not `in _watched`: torch.compile cannot look into weak dictionaries; nobody watches decode steps
        if getattr(module, _FLAG, False) and not (query.shape[2] == 1 and torch.compiler.is_compiling()):
            rows = _show(module, query, key, kwargs.get("scaling"), kwargs.get("cu_seq_lens_q"))
            if rows is not None:
                return rows.attend(run, module, query, key, *args, **kwargs)
        return run(module, query, key, *args, **kwargs)

    return attention


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _show(
    module: nn.Module, query: Tensor, key: Tensor, scaling: float | None, borders: Tensor | None
) -> TowerPass | None:
    """Shows queries and keys to observers; returns the stage that asks for them in another way."""
    observers, rows = here.observers(module), here.rows(module)
    if not observers:
        return rows
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    with as_given(query.device):
        shown = (query.detach(), key.detach())
        for each_query, each_key in _sequences(*shown, borders) if rows is None else rows.shown(*shown):
            for observer in observers:
                observer(each_query, each_key, scale)
    return rows


def _sequences(query: Tensor, key: Tensor, borders: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Sequences packed into one row, which flash attention tells apart by their borders, one by one."""
    if borders is None or query.shape[0] != 1:
        return [(query, key)]
    lengths = borders.diff().tolist()
    return list(zip(torch.split(query, lengths, dim=2), torch.split(key, lengths, dim=2), strict=True))


def attention_of_first(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """The attention that the first token (a class token) pays to each key, mean over heads.

    Args:
        query: (F, H, P, d).
        key: (F, G, P, d), G divides H.
        scale: factor on the logits, as the model's attention has it.

    Returns:
        (F, P) float32.
    """
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    logits = (query[:, :, :1] @ keys.transpose(-1, -2)).float() * scale
    return logits.softmax(-1).mean((1, 2))


def attention_received(query: Tensor, key: Tensor, scale: float, real: Tensor | None = None) -> Tensor:
    """How much attention each key receives: softmax attention, mean over heads, then mean over queries.

    On a GPU with Triton no matrix of attention in half precision is written down. Elsewhere a few heads at a time, so
    that no more than about 128 MiB of such matrices exist, and on a CPU no more than its cache holds.

    Args:
        query: (F, H, P, d).
        key: (F, G, P, d), G divides H.
        scale: factor on the logits, as the model's attention has it.
        real: (F, P) bool, what is not padding; None: everything.

    Returns:
        (F, P) float32. Source: HoliTom's official code; the paper calls it the SigLIP attention score.
    """
    frames, heads, queries, _ = query.shape
    tokens, device = key.shape[2], query.device
    module = kernels.find(device)
    if module is not None and query.dtype == key.dtype and query.dtype in (torch.float16, torch.bfloat16):
        among = None if real is None else real.to(device)
        reader = torch.full((frames, queries), 1 / queries, dtype=torch.float32, device=device)
        reader = reader if among is None else among / among.sum(-1, keepdim=True)
        received: Tensor = module.column_sums(query, key, scale, reader, among).mean(1)
        return received
    keys = key.repeat_interleave(heads // key.shape[1], dim=1) if key.shape[1] < heads else key
    rows, columns = query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)  # one for each head of each frame
    padding = None
    if real is None:
        readers = query.new_full((1, 1, queries), 1 / queries, dtype=torch.float32).expand(frames * heads, -1, -1)
    else:
        among = real.to(device).repeat_interleave(heads, dim=0)[:, None]
        readers, padding = among / among.sum(-1, keepdim=True), ~among
    sums = torch.empty(frames * heads, 1, tokens, dtype=torch.float32, device=device)
    held = _CACHED_BYTES if device.type == "cpu" else _HELD_BYTES
    step = max(1, held // (4 * queries * tokens))
    unused = query.new_empty(1, 1, 1)
    for start in range(0, frames * heads, step):
        part = slice(start, start + step)
        logits = torch.baddbmm(unused, rows[part], columns[part], beta=0, alpha=scale)
        if padding is not None:
            logits = logits.masked_fill_(padding[part], float("-inf"))
        sums[part] = readers[part] @ logits.softmax(-1, dtype=torch.float32)
    return sums.view(frames, heads, tokens).mean(1)
