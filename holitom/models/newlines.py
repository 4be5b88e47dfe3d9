"""Row newlines: the layout of models that end every row of patches with a newline token ("grid")."""

from __future__ import annotations

import torch
from torch import Tensor

from holitom.merge import Merge


def with_row_newlines(merge: Merge, grid: tuple[int, int]) -> Tensor:
    """The order of a merged video's tokens with a newline after each row of a frame that has at least one token.

    A merged token stands in the row and frame of its anchor, among that frame's own tokens by position.

    Args:
        merge: T*N sources, N = h * w.
        grid: (h, w).

    Returns:
        (M + newlines,) int64: output indexes of ``merge``; -1 for a newline. As in the official "grid" mode, which
        takes every grid for a square and so loses rows of others; this one does not.
    """
    order = merge.anchor.argsort(stable=True)
    row = merge.anchor[order] // grid[1]  # rows are numbered through all frames
    ends = torch.ones_like(row, dtype=torch.bool)
    ends[:-1] = row[1:] != row[:-1]
    tokens = torch.stack([order, torch.full_like(order, -1)], dim=1)
    keep = torch.stack([torch.ones_like(ends), ends], dim=1)
    return tokens[keep]
