"""Gemma 4: frames of one size with times between them; most decoder layers see a sliding window."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.patches import of_each
from holitom.models.towers import Tower, TowerVideo


@register("Gemma4ForConditionalGeneration")
class Gemma4Adapter(Adapter):
    """Serves Gemma 4 before the LLM, in checkpoints whose decoder is causal throughout (E2B, E4B).

    Raises:
        ValueError: for checkpoints whose visual tokens see each other in both directions, and on older transformers.
    """

    families: ClassVar[dict[str, str]] = {"Gemma4ForConditionalGeneration": "Gemma 4"}
    inner: ClassVar[bool] = False
    scores_from: ClassVar[str] = "received; last layer; mean of squares"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if getattr(model.config.get_text_config(), "use_bidirectional_attention", None) is not None:
            raise ValueError(
                "this Gemma 4 checkpoint lets visual tokens see each other in both directions "
                "(use_bidirectional_attention), which holitom does not support: use a causal one (E2B, E4B)"
            )

        if "num_frames_per_video" not in inspect.signature(self.base.get_video_features).parameters:
            raise ValueError(
                "this transformers encodes the videos of Gemma 4 in an older form: upgrade it to 5.23 or later"
            )

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last layer."""
        attention: nn.Module = self.base.vision_tower.encoder.layers[-1].self_attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`. Padding belongs to no video."""
        blocks = self.base.vision_tower.encoder.layers
        videos, first = [], 0
        positions = arguments["video_position_ids"].cpu()
        sources = torch.arange(positions.shape[0] * positions.shape[1], device="cpu").view(positions.shape[:2])
        for frames in arguments["num_frames_per_video"].tolist():
            mine = slice(first, first + frames)
            place = positions[first]
            columns, rows = (place.amax(0) + 1).tolist()
            real = (place >= 0).all(-1)
            order = place[real][:, 1] * columns + place[real][:, 0]
            videos.append(TowerVideo(sources[mine][:, real], (rows, columns), order=order))
            first += frames
        return Tower(blocks, [block.self_attn for block in blocks], (len(blocks) - 1,), videos)

    def patch_mask(self, arguments: dict[str, Any]) -> Tensor | None:
        """Frames are padded to the same number of patches; positions of padding are -1."""
        positions: Tensor = arguments["video_position_ids"]
        return (positions != -1).all(-1)

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each of ``num_frames_per_video`` videos; ``video_position_ids`` is (F, P, 2): x and y."""
        side = self.model.config.vision_config.pooling_kernel_size
        counts = arguments["num_frames_per_video"].tolist()
        places = torch.split(arguments["video_position_ids"], counts)
        ends = [(place.amax((0, 1)) + 1).tolist() for place in places]
        grids = [(height // side, width // side) for width, height in ends]
        values = [of_each(part, counts) for part in (patches.received, patches.keys)]
        return [
            VideoLayout.contiguous(
                len(place),
                grid,
                scores=_mean_by_place(scores, place, grid, side),
                keys=_mean_by_place(keys, place, grid, side),
            )
            for place, grid, scores, keys in zip(places, grids, *values, strict=True)
        ]


def _mean_by_place(values: Tensor | None, place: Tensor, grid: tuple[int, int], side: int) -> Tensor | None:
    """(T, P[, K]) with places (T, P, 2) -> (T, N[, K]): means over squares of ``side`` x ``side`` patches."""
    if values is None:
        return None
    place = place.to(values.device)
    square = (place[..., 1] // side) * grid[1] + place[..., 0] // side
    square = torch.where((place < 0).any(-1), grid[0] * grid[1], square)  # padding goes to a place of its own
    flat = values if values.dim() == 3 else values[..., None]
    sums = flat.new_zeros(len(flat), grid[0] * grid[1] + 1, flat.shape[-1])
    sums.scatter_add_(1, square[..., None].expand_as(flat), flat)
    means = sums[:, :-1] / side**2
    return means if values.dim() == 3 else means[..., 0]
