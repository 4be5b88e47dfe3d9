"""Random dropping of visual tokens, so that the model tolerates missing ones as large models do.

None of the library's methods is used. Besides plain random tokens and random frames, the chance of a token is tilted at
random towards or away from objects (known from the generator), so that the density of what is kept tells nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holitom.video.synthetic.scene import SLOTS


def choose(rng: np.random.Generator, progress: float, owners: NDArray[np.int8]) -> NDArray[np.int64] | None:
    """Choose the kept tokens of a batch with cell owners (B, T, CELLS).

    Returns sorted indices (B, K) into T * CELLS, or None for all. The share kept is 0.25-0.7 in the first 15 % of the
    training, later often everything and otherwise 0.1-1, as often below 0.32 as above.
    """
    b, t, cells = owners.shape
    early = progress < 0.15
    kind = rng.random()
    if not early and kind < (0.35 if progress < 0.55 else 0.45):
        return None
    if kind > 0.8:
        kept = int(rng.integers(5, 12)) if early else int(rng.integers(2, t))
        frames = np.sort(rng.random((b, t)).argsort(1)[:, :kept], 1)
        return (frames[:, :, None] * cells + np.arange(cells)).reshape(b, -1)
    share = rng.uniform(0.25, 0.7) if early else 0.1 ** rng.random()
    score = rng.gumbel(size=(b, t * cells))
    # The tilt common to all objects hides how many there are, the tilt of each one how large or how long it is there.
    common = rng.uniform(-4.0, 6.0, (b, 1))
    each = rng.normal(0.0, 1.5, (b, SLOTS))
    tilt = (common + each)[np.arange(b)[:, None, None], np.maximum(owners, 0)] * (owners >= 0)
    score += np.where(rng.random((b, 1)) < 0.6, tilt.reshape(b, -1), 0.0)
    # A burst of tokens around random frames varies the density over time, again without looking at the content.
    wave = rng.normal(0.0, 0.7, (b, t, 1)) * (rng.random((b, 1, 1)) < 0.3)
    score += np.broadcast_to(wave, owners.shape).reshape(b, -1)
    kept = max(1, round(share * t * cells))
    return np.sort(np.argpartition(-score, kept - 1, axis=1)[:, :kept], 1)
