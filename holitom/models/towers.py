"""Vision towers as a stage inside them needs to know them, and which layers of CLIP and SigLIP towers are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from holitom.merge import Merge


@dataclass(frozen=True, eq=False)
class TowerVideo:
    """One video among the patches of a call of a vision tower.

    Args:
        sources: (T, P) int64 on the CPU: where the states of its patches stand among all S of the call.
        grid: (rows, columns) of patches of a frame; P = leading + rows * columns.
        leading: class tokens in front of a frame's patches.
        order: (P,) int64 on the CPU, the place in the frame of each state, class tokens first; None: as they stand.
        first: the first source, where all others follow it in order; None: they do not.
    """

    sources: Tensor
    grid: tuple[int, int]
    leading: int = 0
    order: Tensor | None = None
    first: int | None = None

    @classmethod
    def contiguous(
        cls, first: int, frames: int, grid: tuple[int, int], leading: int = 0, order: Tensor | None = None
    ) -> TowerVideo:
        """A video of T frames whose patches follow each other from state ``first`` on."""
        size = leading + grid[0] * grid[1]
        return cls(first + torch.arange(frames * size, device="cpu").view(frames, size), grid, leading, order, first)

    @property
    def index(self) -> slice | Tensor:
        """The sources (T*P,) as an index of states: a slice where they follow each other."""
        return self.sources.flatten() if self.first is None else slice(self.first, self.first + self.sources.numel())


@dataclass(frozen=True, eq=False)
class Tower:
    """A family's vision tower, for one call that encodes videos.

    Args:
        blocks: its blocks, in order.
        attention: the attention module of each block; None for a block without one.
        reads: the blocks whose output is read by something other than the next block; -1: the embedding.
        videos: the videos among the call's patches; what belongs to none (images) stays as it is.
        mixers: pairs of linear modules between which patches of one frame mix other than by attention
            (convolutions): behind the first and in front of the second there is a state for each patch.
        layouts: for each video, which of the layouts that the adapter makes of the call is its (first) one; None: they
            correspond.
        projector: a module that maps the last states (F, P, D) one by one; None where there is none such.
    """

    blocks: Sequence[nn.Module]
    attention: Sequence[nn.Module | None]
    reads: tuple[int, ...]
    videos: list[TowerVideo]
    mixers: list[tuple[nn.Module, nn.Module]] = field(default_factory=list)
    projector: nn.Module | None = None
    layouts: list[int] | None = None

    @property
    def unread(self) -> Sequence[nn.Module]:
        """The last blocks, whose output nothing reads."""
        return self.blocks[max(self.reads) + 1 :]


@dataclass(eq=False)
class TowerRecord:
    """What a stage inside the vision tower did to one video.

    Args:
        grid: (rows, columns) of patches of a frame.
        leading: class tokens in front of them.
        place: (P,) int64, the place in the frame of each source of a frame, class tokens first.
        frames: T.
        merges: the block in front of which each map acts, and the map of the video's T*P patches in force from there.
        rows: the video's rows in each block that is read. Empty where all blocks worked on all patches.
        projected: the rows that went through the projector; None: all patches.
        count: tells the video's pairs of queries and keys in each of these blocks.
    """

    frames: int
    grid: tuple[int, int]
    leading: int
    place: Tensor
    merges: list[tuple[int, Merge]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    projected: int | None = None
    count: Callable[[], list[int]] = list

    @cached_property
    def pairs(self) -> list[int]:
        """The video's pairs of queries and keys in each block that is read. Counted when it is asked for first."""
        return self.count()

    @property
    def merge(self) -> Merge | None:
        """The map in force in the last block; None where nothing has merged."""
        last = self.merges[-1][1] if self.merges else None
        return None if last is None or last.outputs == last.inputs else last

    @property
    def patches(self) -> Merge:
        """The map in force in the last block, of the T * h * w patches in the order of their places.

        Class tokens are left out, and what a row holds of them.
        """
        count = self.grid[0] * self.grid[1]
        state = self.place.argsort()[self.leading :]
        source = (torch.arange(self.frames, device="cpu")[:, None] * len(self.place) + state).flatten()
        merge = Merge.identity(self.frames * len(self.place)) if self.merge is None else self.merge.to("cpu")
        rows, target = torch.unique(merge.target[source], return_inverse=True)
        weight = merge.weight[source]
        total = torch.zeros(len(rows), dtype=weight.dtype, device="cpu")
        total.index_add_(0, target, weight)
        first = torch.full((len(rows),), len(source), device="cpu").scatter_reduce_(
            0, target, torch.arange(len(source), device="cpu"), "amin"
        )
        patch = torch.full((merge.inputs,), -1, device="cpu")
        patch[source] = torch.arange(self.frames * count, device="cpu")
        anchor = patch[merge.anchor[rows]]
        return Merge(target, weight / total[target], torch.where(anchor < 0, first, anchor))

    def pooled(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """How a frame's patches become the places of the LLM's grid: bilinearly, or by equal cells where they divide.

        Args:
            grid: (rows, columns) of the LLM's.

        Returns:
            (E,) int64 patches, (E,) int64 places and (E,) float32 shares, which sum to 1 for each place.
        """
        rows, columns = (
            _pooled_line(before, after) for before, after in zip(self.grid, grid, strict=True)
        )  # each (before, after)
        shares = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(2).flatten(0, 1)
        patch, place = shares.nonzero().unbind(1)
        return patch, place, shares[patch, place]

    @property
    def share(self) -> float:
        """The share of patches that the tower computed, mean over its blocks."""
        full = len(self.rows) * self.frames * len(self.place)
        return sum(self.rows) / full if full else 1.0


def _pooled_line(before: int, after: int) -> Tensor:
    """(before, after) float32: the share of each patch of a line in each place of the LLM's."""
    each = torch.eye(before, dtype=torch.float32, device="cpu")[None]
    if before % after == 0:
        return torch.nn.functional.adaptive_avg_pool1d(each, after)[0]
    return torch.nn.functional.interpolate(each, size=after, mode="linear")[0]


def clips(arguments: dict[str, Any]) -> Tensor:
    """(videos, T, 3, H, W): the pixels of a call of ``get_video_features``, whatever the argument is called."""
    pixels: Tensor = arguments["pixel_values_videos" if "pixel_values_videos" in arguments else "pixel_values"]
    return pixels


def used_layers(layers: nn.ModuleList, selected: int | list[int] | None) -> tuple[int, ...]:
    """The layers whose output is a hidden state that a model reads, ascending; -1: the embedding.

    Args:
        layers: the tower's layers.
        selected: index or indexes of hidden states; state 0 is the embedding.
    """
    indexes = [-1] if selected is None else [selected] if isinstance(selected, int) else selected
    return tuple(sorted({index % (len(layers) + 1) - 1 for index in indexes}))


def last_used_layer(layers: nn.ModuleList, selected: int | list[int] | None) -> Any:
    """The last of :func:`used_layers`; the first layer where a model reads nothing but the embedding."""
    return layers[max(used_layers(layers, selected)[-1], 0)]


def all_asked(arguments: dict[str, Any], tower: Any) -> bool:
    """Whether a call asks for the hidden states of all blocks."""
    return bool(arguments.get("output_hidden_states") or getattr(tower.config, "output_hidden_states", False))


def selected_layers(arguments: dict[str, Any], config: Any) -> int | list[int] | None:
    """``vision_feature_layer`` of a call, or else of the config."""
    selected = arguments.get("vision_feature_layer")
    layers: int | list[int] | None = config.vision_feature_layer if selected is None else selected
    return layers


def image_tower(
    tower: Any,
    arguments: dict[str, Any],
    config: Any,
    leading: int = 0,
    projector: nn.Module | None = None,
) -> Tower:
    """A CLIP or SigLIP tower in a call of ``get_video_features`` with clips of one size.

    Args:
        tower: with ``encoder.layers``.
        arguments: of the call.
        config: the model's.
        leading: class tokens of a frame.
        projector: see :class:`Tower`.
    """
    layers = tower.encoder.layers
    videos, frames, _, height, width = clips(arguments).shape
    size = config.vision_config.patch_size
    grid = (height // size, width // size)
    each = frames * (leading + grid[0] * grid[1])
    reads = used_layers(layers, selected_layers(arguments, config))
    return Tower(
        layers,
        [layer.self_attn for layer in layers],
        tuple(range(-1, len(layers))) if all_asked(arguments, tower) else reads,
        [TowerVideo.contiguous(number * each, frames, grid, leading) for number in range(videos)],
        projector=projector if isinstance(selected_layers(arguments, config), int) else None,
    )
