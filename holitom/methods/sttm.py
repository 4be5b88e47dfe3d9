"""STTM: multi-granular spatio-temporal token merging (Hyun et al., ICCV 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.ops.quadtree import Level, levels, over_children, parents
from holitom.tokens import SpanStates


@dataclass(frozen=True)
class STTM(Method):
    """Inside the LLM, merges uniform squares of a frame into one token, and what stays the same over time.

    Paper: https://arxiv.org/abs/2507.07990. In front of a decoder layer each frame becomes a quadtree: a node stays
    whole where its mean is like the mean of each child, else it splits. Then nodes of neighbouring frames, one of which
    covers the other, join where they are alike; a group becomes the mean of its nodes and stands where its first node
    begins. The sequence is renumbered (1-D positions). The number of tokens depends on the content: two waits for the
    device. Official bugs that are fixed here: a node at an odd border is compared with its own children alone, not
    with the frame's first child as well; and all nodes that are linked join, not only those that two rounds reach.

    Args:
        threshold: the least cosine between a node and its children. Official scripts: 0.75 to 0.95, for each model and
            data set another.
        temporal_threshold: the least cosine between nodes of neighbouring frames; None: no step over time. Official
            scripts: 0.50 to 0.90.
        layer: the decoder layer, an index or a share of the depth. Official: 2.
        root_level: the level of the largest nodes, 0 is the coarsest. Official: 1 (of 14 x 14 patches 4 x 4 nodes).
        weighted: whether means count patches instead of nodes.
        head_dim: compare slices of so many channels and take the mean of their cosines; None: all channels at once.
    """

    name: ClassVar[str] = "sttm"
    paper: ClassVar[str] = "https://arxiv.org/abs/2507.07990"
    venue: ClassVar[str] = "ICCV 2025"
    looks_at: ClassVar[str] = "features, change"
    compacts: ClassVar[bool] = True

    threshold: float = 0.90
    temporal_threshold: float | None = 0.60
    layer: float | int = 2
    root_level: int = 1
    weighted: bool = False
    head_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("threshold", "temporal_threshold"):
            value = getattr(self, name)
            if value is not None and not -1 <= value <= 1:
                raise ValueError(f"{name} is a cosine and must lie in [-1, 1], got {value!r}")
        if self.root_level < 0:
            raise ValueError(f"root_level counts from 0, the coarsest level; got {self.root_level!r}")
        if self.head_dim is not None and self.head_dim < 1:
            raise ValueError(f"head_dim is a number of channels, at least 1, or None; got {self.head_dim!r}")

    def merge_span(self, span: SpanStates) -> Merge:
        """Merges a whole video's patches; tokens that are none (newlines) stay.

        Raises:
            ValueError: when an earlier stage has taken patches away, or ``head_dim`` does not divide the channels.
        """
        patches = span.frames * span.grid[0] * span.grid[1]
        if self.head_dim is not None and span.hidden.shape[1] % self.head_dim:
            raise ValueError(f"head_dim={self.head_dim} does not divide the {span.hidden.shape[1]} channels")
        place, order = span.place.sort(stable=True)  # tokens that are no patches come first
        others = len(place) - patches
        if others < 0 or not torch.equal(place[others:], torch.arange(patches, device=place.device)):
            raise ValueError(
                f"STTM merges squares of patches and needs all {patches} of {span.frames} frames of {span.grid}, but "
                "an earlier stage has taken some away: use it without a stage before it"
            )
        states = span.hidden[order[others:]]
        first, share = self._leaves(states.view(span.frames, *span.grid, -1))
        group = first.flatten() if self.temporal_threshold is None else self._groups(states, first, share)
        size = torch.zeros(patches, dtype=torch.float32, device=states.device)
        leaf = (first.flatten() == torch.arange(patches, device=first.device)).float()
        size.index_add_(0, group, torch.ones_like(size) if self.weighted else leaf)
        share = 1 / size[group] if self.weighted else share.flatten() / size[group]
        # each token's representative, by its index in the span; outputs stand in the order of the span
        lead, weight = torch.arange(len(place), device=place.device), share.new_ones(len(place))
        lead[order[others:]], weight[order[others:]] = order[others:][group], share
        leads = lead == torch.arange(len(place), device=place.device)
        return Merge((leads.cumsum(0) - 1)[lead], weight, leads.nonzero()[:, 0])

    def _leaves(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(T, H, W, D) -> for each patch (T, H, W): the flat position at which its leaf begins, its share in it."""
        frames, rows, columns, _ = states.shape
        device = states.device
        grids = levels((rows, columns))
        grids = grids[min(self.root_level, len(grids) - 1) :]
        means = [states.float()]
        reduce = "sum" if self.weighted else "mean"
        for _ in grids[1:]:
            means.insert(0, over_children(over_children(means[0], 1, reduce), 2, reduce))
        place = torch.arange(frames * rows * columns, device=device).view(frames, rows, columns)
        first, share = place.clone(), torch.ones(place.shape, dtype=torch.float32, device=device)
        active = torch.ones(means[0].shape[:3], dtype=torch.bool, device=device)
        for grid, coarse, fine in zip(grids, means, means[1:], strict=False):
            whole = active & self._uniform(coarse, fine)
            row, column = grid.row.to(device), grid.column.to(device)
            leaf = whole[:, row][:, :, column]
            first = torch.where(leaf, self._begin(grid, frames, device), first)
            share = torch.where(leaf, grid.share.to(device), share)
            up_row, up_column = parents(fine.shape[1], device), parents(fine.shape[2], device)
            active = (active & ~whole)[:, up_row][:, :, up_column]
        return first, share

    def _uniform(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(T, h, w) bool: which nodes are like each of their children."""
        up_row, up_column = parents(fine.shape[1], fine.device), parents(fine.shape[2], fine.device)
        likeness = self._cosine(coarse[:, up_row][:, :, up_column], fine)
        return over_children(over_children(likeness, 1, "amin"), 2, "amin") >= self.threshold

    @staticmethod
    def _begin(grid: Level, frames: int, device: torch.device) -> Tensor:
        """(T, H, W) int64: the flat position of the first patch of each patch's node."""
        rows, columns = len(grid.row), len(grid.column)
        within = (grid.first_row[:, None] * columns + grid.first_column[None, :]).to(device)
        return torch.arange(frames, device=device)[:, None, None] * (rows * columns) + within

    def _cosine(self, one: Tensor, other: Tensor) -> Tensor:
        """(..., D), (..., D) -> (...)."""
        if self.head_dim is None:
            return F.cosine_similarity(one, other, dim=-1)
        heads = (*one.shape[:-1], -1, self.head_dim)
        return F.cosine_similarity(one.reshape(heads), other.reshape(heads), dim=-1).mean(-1)

    def _groups(self, states: Tensor, first: Tensor, share: Tensor) -> Tensor:
        """(S,) int64: where the first leaf of the group of each patch's leaf begins.

        Over one position, the leaves of neighbouring frames overlap, and of two that overlap one covers the other.

        Args:
            states: (S, D).
            first: (T, H, W), see :meth:`_leaves`.
            share: (T, H, W), see :meth:`_leaves`.
        """
        assert self.temporal_threshold is not None
        flat, by_frame = first.flatten(), first.flatten(1)
        parts = states.float() * (1 if self.weighted else share.flatten()[:, None])
        means = torch.zeros_like(parts).index_add_(0, flat, parts)
        earlier, later = by_frame[:-1].flatten(), by_frame[1:].flatten()
        alike = self._cosine(means[earlier], means[later]) >= self.temporal_threshold
        one, other, linked = torch.stack([earlier, later, alike.long()]).cpu().numpy()
        groups = self._unite(len(flat), one[linked > 0], other[linked > 0])
        return torch.from_numpy(groups).to(flat.device, non_blocking=True)[flat]

    def _unite(self, total: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(total,) int64: the least element that each is linked to, over links ``one[i] - other[i]``."""
        least = np.arange(total)
        while True:
            met, before = np.minimum(least[one], least[other]), least.copy()
            np.minimum.at(least, one, met)
            np.minimum.at(least, other, met)
            least = least[least]
            if (least == before).all():
                return least
