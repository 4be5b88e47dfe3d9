"""Colours of pictures: few, distinct for colour-blind readers, and never the only sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holitom.merge import Merge

PALETTE = ("#f0e442", "#d55e00", "#332288", "#882255", "#88ccee", "#4477aa")
"""Colours of merged tokens. With normal sight and with each kind of colour blindness, any two of them are at least 25
apart in CIELAB (the tests simulate it)."""
FILL = 0.5
"""How much of a colour lies over the picture, which is grey below it."""
SCALE = ("#00204c", "#31446b", "#666870", "#958f78", "#cab969", "#ffea46")
"""From low to high values: cividis, whose lightness alone tells the order."""


def colour_tokens(merge: Merge, frames: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """A colour for each token that is made of several patches, so that tokens which touch differ where possible.

    Args:
        merge: a map of the T * h * w patches.
        frames: T.
        grid: (h, w).

    Returns:
        (M,) indexes into PALETTE; -1 for a token of one patch.
    """
    target = merge.target.detach().cpu().numpy()
    sizes = np.bincount(target[target >= 0], minlength=merge.outputs)
    video = target.reshape(frames, *grid)
    pairs = np.concatenate(
        [
            np.stack([one.ravel(), other.ravel()], 1)
            for one, other in (
                (video[:, 1:], video[:, :-1]),
                (video[:, :, 1:], video[:, :, :-1]),
                (video[1:], video[:-1]),
            )
        ]
    )
    pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs >= 0).all(1)]
    pairs = pairs[(sizes[pairs] > 1).all(1)]
    neighbours: dict[int, dict[int, int]] = {}
    if len(pairs):
        edges, counts = np.unique(np.sort(pairs, 1), axis=0, return_counts=True)
        for (one, other), count in zip(edges.tolist(), counts.tolist(), strict=True):
            neighbours.setdefault(one, {})[other] = count
            neighbours.setdefault(other, {})[one] = count
    colour = np.full(merge.outputs, -1, dtype=np.int64)
    used = np.zeros(len(PALETTE))
    for token in np.flatnonzero(sizes > 1).tolist():
        clash = np.zeros(len(PALETTE))
        for other, count in neighbours.get(token, {}).items():
            if colour[other] >= 0:
                clash[colour[other]] += count
        best = int(np.lexsort((used, clash))[0])
        colour[token] = best
        used[best] += 1
    return colour
