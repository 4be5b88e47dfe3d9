"""What a task would ask of a GPU, counted without one: operations that it starts, and waits for their results.

A GPU takes longer to start a small operation than to run it, and a host that waits for a result starts nothing. Inside
:func:`counting`, tensors from :func:`place` say that they are on a GPU, while their values are in host memory: the task
takes the path that it takes on a GPU, and mixing devices fails as it does there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("meta")  # not the CPU, and to be had everywhere
FREE = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"})
VALUES = frozenset({"_local_scalar_dense", "equal", "is_nonzero"})  # what they return is on the host
SIZED_BY_VALUES = frozenset({"nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive"})


@dataclass
class Launches:
    """What was counted.

    Attributes:
        operations: how often each operation was started on the device: all that compute, fill or copy. Views and
            allocations are free. An operation that a GPU does in several kernels, as a sort, counts once.
        waits: how often the host waited, by the operation: for a value, a copy to the host, a copy to the device that
            was not asked for as non_blocking, or a result whose size depends on values.
        on_host: how often each of torch's operations ran on the host's own tensors meanwhile.
    """

    operations: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    on_host: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.operations.total()} operations, {self.waits.total()} waits"


class _Placed(Tensor):
    """Says that it is on the device; ``held`` has the values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Placed:
        made: _Placed = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} as if on a GPU"

    def tolist(self) -> list[Any]:
        """The values: a wait."""
        values: list[Any] = self.cpu().tolist()
        return values

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError("placed tensors can be used inside counting() only; fetch() gives their values")


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations on the host, and counts those on placed tensors."""

    def __init__(self, found: Launches) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), function._schema.name.partition("::")[2]
        tensors: list[Tensor] = []
        tree_map_only(Tensor, tensors.append, (args, kwargs))
        given, wanted = any(isinstance(tensor, _Placed) for tensor in tensors), kwargs.get("device")
        if name == "copy_":
            placed = isinstance(args[0], _Placed)
        else:
            placed = given if wanted is None else torch.device(wanted).type == DEVICE.type
        if not (given or placed):
            self.found.on_host[name] += not _is_free(name, function._schema)
        else:
            self._count(name, function._schema, tensors, args, kwargs, given, placed)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        own_args, own_kwargs = tree_map_only(_Placed, fetch, (args, kwargs))
        result = function(*own_args, **own_kwargs)
        if name == "_to_copy" and given != placed and result is own_args[0]:
            result = result.clone()
        if not placed or name in VALUES:
            return result
        if function._schema.is_mutable:
            return kwargs.get("out", args[0])
        return tree_map_only(Tensor, _Placed, result)

    def _count(
        self, name: str, schema: Any, tensors: list[Tensor], args: Any, kwargs: Any, given: bool, placed: bool
    ) -> None:
        if _is_free(name, schema):
            return
        strangers = [tensor for tensor in tensors if tensor.dim() and not isinstance(tensor, _Placed)]
        moves = name in ("_to_copy", "copy_") and (given != placed or bool(strangers))
        indexes = [index for index in args[1] if index is not None] if name in ("index", "index_put_") else []
        if strangers and not moves and not all(any(own is index for index in indexes) for own in strangers):
            raise RuntimeError(f"{name}: expected all tensors to be on one device, got some on the GPU and some on cpu")
        self.found.operations[name] += 1
        unknown = name == "repeat_interleave" and kwargs.get("output_size") is None
        masks = any(index.dtype == torch.bool for index in indexes) and not (name == "index_put_" and not args[2].dim())
        blocks = moves and not (kwargs.get("non_blocking") or args[2:3] == (True,))
        if name in VALUES or name in SIZED_BY_VALUES or unknown or masks or blocks or (strangers and indexes):
            self.found.waits[name] += 1


def _is_free(name: str, schema: Any) -> bool:
    own = schema.returns[0].alias_info if schema.returns else None
    return name in FREE or (own is not None and not own.is_write)


@contextmanager
def counting() -> Iterator[Launches]:
    """Counts what is done with placed tensors inside the block.

    Examples:
        >>> with counting() as found:
        ...     total = place(torch.ones(3)).sum().item()
        >>> str(found)
        '2 operations, 1 waits'
    """
    found = Launches()
    with torch.no_grad(), _Counting(found):
        yield found


def place(tensor: Tensor) -> Tensor:
    """A tensor that says it is on a GPU and has the values of this one."""
    return _Placed(tensor.detach())


def fetch(tensor: Tensor) -> Tensor:
    """The values of a placed tensor, on the host; not counted. Any other tensor as it is."""
    return tensor.held if isinstance(tensor, _Placed) else tensor
