"""ForestPrune: the shallowest tokens of trees that grow over time (arXiv 2603.22911)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.methods.exact import ExactMethod
from holitom.ops.forest import grow_forest, unlike_roots, walk_scores
from holitom.ops.ranking import top_indexes
from holitom.tokens import VideoTokens, check_share


@dataclass(frozen=True)
class ForestPrune(ExactMethod):
    """Keeps the tokens that are the first of their kind: roots and shallow nodes of trees over the whole video.

    Paper: https://arxiv.org/abs/2603.22911. Of each frame a share is selected by a walk from token to alike token.
    These become nodes, frame by frame: each hangs on the tree of the most alike earlier one that is near it, below the
    last node that this tree has got; without one it is a root. Where there are more roots than the budget, the later of
    the two most alike ones goes, again and again; else the shallowest nodes stay, early frames first.

    Officially undefined, here the lower position goes first: which of equally deep nodes of a frame stay, and which of
    two roots of one frame is the later one. Its budget is used in one newline mode alone there; depths and times are
    compared as one sum, which mixes them from 1,000 frames on.

    Args:
        retention: share of the visual tokens that enter the LLM.
        preselect: share of each frame's tokens that can be nodes; with a larger retention, that.
        similarity: tau, the least cosine of a node and an earlier one of its tree.
        distance: the largest difference of their rows or columns, in shares of the frame (officially 1 - 0.8).
        exact: keep exactly ``exact_count(T, (h, w), retention)`` tokens, not round(T * round(N * preselect) *
            retention / preselect).
    """

    name: ClassVar[str] = "forestprune"
    paper: ClassVar[str] = "https://arxiv.org/abs/2603.22911"
    venue: ClassVar[str] = "arXiv 2026"
    looks_at: ClassVar[str] = "features, time"
    exact_count: ClassVar[bool] = True

    retention: float = 0.10
    preselect: float = 0.5
    similarity: float = 0.9
    distance: float = 1 - 0.8
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("preselect", self.preselect)
        if not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity is a cosine and must lie in [-1, 1], got {self.similarity!r}")
        if not self.distance >= 0:
            raise ValueError(f"distance is a share of the frame, 0 or more, got {self.distance!r}")

    @property
    def _share(self) -> float:
        return max(self.preselect, self.retention)

    def own_count(self, frames: int, grid: tuple[int, int]) -> int:
        """See the class."""
        nodes = self._nodes(grid[0] * grid[1])
        return min(frames * nodes, max(1, round(frames * nodes * self.retention / self._share)))

    def _nodes(self, positions: int) -> int:
        return max(1, round(positions * self._share))

    def preselected(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(T, k) int64 ascending, the positions of each frame that become nodes; (T, N) float32, by which scores."""
        scores = walk_scores(features)
        return top_indexes(scores, self._nodes(features.shape[1])), scores

    def choose(self, video: VideoTokens) -> tuple[Tensor, Tensor]:
        """Preselects, grows trees and takes the shallowest nodes. Waits for the device at every frame."""
        (frames, positions, width), grid, device = video.features.shape, video.grid, video.features.device
        nodes, scores = self.preselected(video.features)
        picked = video.features.gather(1, nodes[..., None].expand(-1, -1, width)).float()
        unit = F.normalize(picked.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), dim=-1)
        row, column = nodes // grid[1] / max(1, grid[0] - 1), nodes % grid[1] / max(1, grid[1] - 1)
        place = torch.stack([row, column], -1)
        depth = grow_forest(unit, place, self.similarity, self.distance)
        count, roots = self.own_count(frames, grid), np.flatnonzero(depth == 0)
        if len(roots) > count:
            kept = roots[unlike_roots(unit.flatten(0, 1)[torch.from_numpy(roots).to(device)], count)]
        else:
            kept = np.lexsort((np.arange(len(depth)), depth))[:count]
        flat = (nodes + torch.arange(frames, device=device)[:, None] * positions).flatten()
        mask = torch.zeros(frames * positions, dtype=torch.bool, device=device)
        return mask.index_fill_(0, flat[torch.from_numpy(kept).to(device)], True), scores.flatten()
