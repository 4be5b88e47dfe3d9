"""Where the videos of a batch lie: from their placeholders and the layouts of what was encoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from holitom.edges import send
from holitom.models.base import VideoLayout


@dataclass(frozen=True, eq=False)
class Located:
    """One video in one row.

    Args:
        layout: how it was encoded.
        columns: (P,) int64 on the CPU, ascending, the row's columns of its placeholders.
    """

    layout: VideoLayout
    columns: Tensor

    def patches(self, device: torch.device) -> tuple[Tensor, Tensor, int | None]:
        """(T*N,) columns and blocks of the patches by flat position, on a device; or on the CPU, with the first column,
        where they are one run in order."""
        if self.layout.newlines is not None:
            patches = self.columns[: len(self.columns) - self.layout.newlines]
            first = int(patches[0])
            if int(patches[-1]) - first + 1 == len(patches):
                return patches, patches[:1].expand(len(patches)), first
        real = self.layout.place >= 0
        by_place = self.layout.place[real].argsort()
        return (*send([self.columns[real][by_place], self._blocks[real][by_place]], device), None)  # type: ignore[return-value]

    @property
    def _blocks(self) -> Tensor:
        """(P,) int64, the first column of the unbroken run of patches that each stands in."""
        patch = self.layout.place >= 0  # a newline or a frame's class token keeps its place between runs of patches
        starts = torch.ones_like(patch)
        starts[1:] = (self.columns.diff() != 1) | (patch[1:] != patch[:-1])
        return self.columns[starts][starts.cumsum(0) - 1]


def locate(marked: Tensor, layouts: list[VideoLayout], in_chunks: bool = False) -> list[list[Located]]:
    """The videos of each row.

    Rows that generate() repeats for beams or several return sequences share the videos of the first of them.

    Args:
        marked: (B, Q) bool on the CPU, the videos' placeholders.
        layouts: of the encoded videos, in order.
        in_chunks: whether the prompt comes in chunks.

    Raises:
        ValueError: when placeholders and encoded videos do not fit, saying which.
    """
    columns = [row.nonzero()[:, 0] for row in marked]
    found, encoded = sum(len(row) for row in columns), sum(len(layout.place) for layout in layouts)
    if not found:
        return [[] for _ in columns]
    repeats, rest = divmod(found, encoded) if encoded else (0, 1)
    if rest or not repeats or len(columns) % repeats:
        raise ValueError(
            f"the prompt has {found} video placeholder tokens, but the videos encoded for it have {encoded}: "
            + (
                "prefill in chunks (prefill_chunk_size) splits them and cannot be combined with compression; leave it "
                "unset"
                if in_chunks
                else "give the ids and the pixels of the same videos, all of them in one call"
            )
        )
    rows: list[list[Located]] = []
    upcoming = iter(layouts)
    for first in range(0, len(columns), repeats):
        shared: list[VideoLayout] = []
        left = len(columns[first])
        while left > 0:
            shared.append(next(upcoming))
            left -= len(shared[-1].place)
        if left or any(len(columns[first + copy]) != len(columns[first]) for copy in range(repeats)):
            raise ValueError(
                f"row {first} of the prompt has {len(columns[first])} video placeholder tokens, which no whole number "
                f"of its videos ({[len(layout.place) for layout in layouts]} tokens) makes up"
            )
        rows += [_split(columns[first + copy], shared) for copy in range(repeats)]
    return rows


def _split(columns: Tensor, layouts: list[VideoLayout]) -> list[Located]:
    located, start = [], 0
    for layout in layouts:
        located.append(Located(layout, columns[start : start + len(layout.place)]))
        start += len(layout.place)
    return located


def padding_of(valid: Tensor) -> tuple[list[int], list[int]]:
    """For each row of (B, Q) bool on the CPU: the padding before its first and after its last real token."""
    rows, width = valid.shape
    if bool(valid.all()):
        return [0] * rows, [0] * rows
    counts = valid.long()
    leading = torch.where(valid.any(1), counts.argmax(1), width)
    trailing = torch.where(valid.any(1), counts.flip(1).argmax(1), 0)
    return leading.tolist(), trailing.tolist()
