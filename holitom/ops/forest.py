"""ForestPrune's trees over time: who stands for what came before, and the shallowest of them (arXiv 2603.22911)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.ops.similarity import row_chunk

TEMPERATURE = 0.03
STEPS = 5  # of the walk
ALIKE = 0.5  # the least cosine that a step may follow


def walk_scores(features: Tensor) -> Tensor:
    """How much of a frame's norms five steps from token to alike token carry to each, over how many it is alike.

    Args:
        features: (T, N, D) floating point.

    Returns:
        (T, N) float32.
    """
    (frames, positions, width), found = features.shape, []
    some = row_chunk(positions * max(positions, width), features.device)
    for start in range(0, frames, some):
        x = features[start : start + some].float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        unit = F.normalize(x, dim=-1)
        cosine = unit @ unit.transpose(1, 2)
        alike = cosine >= ALIKE
        step = (cosine / TEMPERATURE).masked_fill(~alike, -torch.inf)
        step = step.masked_fill(~alike.any(-1, keepdim=True), 0.0).softmax(-1)  # a token without a direction
        mass = x.norm(dim=-1)[:, None]
        for _ in range(STEPS):
            mass = mass @ step
        found.append(mass[:, 0] / alike.sum(-1).clamp(min=1))
    return torch.cat(found)


def grow_forest(unit: Tensor, place: Tensor, similarity: float, near: float) -> np.ndarray:
    """Trees over the tokens of a video: each token of a frame hangs on the tree of its most alike earlier token.

    It becomes a child of the last token that this tree got in an earlier frame. Without an earlier token that is alike
    and near enough it is a root.

    Args:
        unit: (T, k, D) float32 directions.
        place: (T, k, 2) float32, row and column of each, in 0..1.
        similarity: the least cosine.
        near: the largest difference of rows or columns.

    Returns:
        (T*k,) int64: how deep each token hangs in its tree; 0: it is a root. Waits for the device at every frame.
    """
    frames, count, _ = unit.shape
    rows, places = unit.flatten(0, 1), place.flatten(0, 1).double()
    root = np.arange(frames * count)
    depth, tail = np.zeros_like(root), np.arange(frames * count)  # tail: of each root, the last of its tree
    for frame in range(1, frames):
        here = slice(frame * count, (frame + 1) * count)
        cosine = rows[here] @ rows[: frame * count].T
        apart = (places[here, None] - places[None, : frame * count]).abs().amax(-1)
        cosine = cosine.masked_fill((cosine < similarity) | (apart > near), -torch.inf)
        best = cosine.amax(-1, keepdim=True)
        found = apart.masked_fill(cosine < best, torch.inf).argmin(-1).cpu().numpy()
        hangs = best[:, 0].isfinite().cpu().numpy()
        mine, tree = np.arange(here.start, here.stop)[hangs], root[found[hangs]]
        root[mine], depth[mine] = tree, depth[tail[tree]] + 1
        tail[tree] = mine  # of several the last
    return depth


def unlike_roots(unit: Tensor, count: int) -> np.ndarray:
    """The roots that are left when, again and again, the later one of the two most alike roots goes.

    Args:
        unit: (R, D) float32 directions, in order of time.
        count: how many are left.

    Returns:
        (count,) int64, ascending. On the host; time and memory grow with the square of R.
    """
    cosine = (unit @ unit.T).cpu().numpy()
    cosine[np.triu_indices(len(cosine))] = -np.inf  # row j holds the earlier roots
    nearest, value = cosine.argmax(1), cosine.max(1)
    stands = np.ones(len(cosine), dtype=bool)
    for _ in range(len(cosine) - count):
        gone = int(value.argmax())
        stands[gone], value[gone], cosine[:, gone] = False, -np.inf, -np.inf
        for other in np.flatnonzero(stands & (nearest == gone)):
            nearest[other], value[other] = cosine[other].argmax(), cosine[other].max()
    return np.flatnonzero(stands)
