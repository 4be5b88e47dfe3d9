"""Which rows are answered together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def groups(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Neighbours in the source, ``size`` at a time. Batches never reach beyond a group.

    So they are the same in a run that was interrupted, whatever it had finished, and with them every rounding.
    """
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of rows of like length, none of which is longer than ``budget`` when padded to its longest row.

    Args:
        lengths: tokens of each row.
        budget: tokens of a batch; a row that is longer is a batch of its own.

    Returns:
        Indexes into ``lengths``, each once. The longest rows come first, so that what does not fit into memory fails at
        once and not after hours.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
