"""Qwen2-VL, Qwen2.5-VL and what is built like them: any resolution, squares of 2 x 2 patches merged into one token."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.patches import from_window_order, mean_of_packed, places_of_units, window_order
from holitom.models.towers import Tower, TowerVideo


@register("Qwen2VLForConditionalGeneration")
class QwenVLAdapter(Adapter):
    """Serves models whose tower takes the patches of all videos in one row, with ``video_grid_thw``."""

    families: ClassVar[dict[str, str]] = {
        "Qwen2VLForConditionalGeneration": "Qwen2-VL",
        "Qwen2_5_VLForConditionalGeneration": "Qwen2.5-VL",
    }
    scores_from: ClassVar[str] = "received; last block; mean of 2 x 2"

    @property
    def visual(self) -> Any:
        """The vision tower."""
        return self.base.visual

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last block."""
        attention: nn.Module = self.visual.blocks[-1].attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        blocks = self.visual.blocks
        deepstack = getattr(self.visual, "deepstack_visual_indexes", None) or ()
        reads = (*deepstack, len(blocks) - 1)
        return Tower(blocks, [block.attn for block in blocks], reads, self._tower_videos(arguments))

    def _tower_videos(self, arguments: dict[str, Any]) -> list[TowerVideo]:
        videos, first, side = [], 0, self.merge_size
        for frames, rows, columns in arguments["video_grid_thw"].tolist():
            grid = (rows // side, columns // side)
            order = places_of_units(grid, side, self._unit_order(grid))
            videos.append(TowerVideo.contiguous(first, frames, (rows, columns), order=order))
            first += frames * rows * columns
        return videos

    def _unit_order(self, grid: tuple[int, int]) -> Tensor | None:
        """(N,) int64: the places of a frame's merge units (h, w) in the order of the tower; None: row by row."""
        return None

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each row of ``video_grid_thw`` (videos, 3): steps of two frames, rows and columns."""
        side = self.merge_size
        grids = [(t, (h // side, w // side)) for t, h, w in arguments["video_grid_thw"].tolist()]
        scores, keys = (self._by_video(values, grids) for values in (patches.received, patches.keys))
        return [
            VideoLayout.contiguous(frames, grid, scores=scores[number], keys=keys[number])
            for number, (frames, grid) in enumerate(grids)
        ]

    @property
    def merge_size(self) -> int:
        """The side of a square of patches that becomes one token."""
        return int(self.visual.spatial_merge_size)

    def _by_video(self, values: Tensor | None, grids: list[tuple[int, tuple[int, int]]]) -> list[Any]:
        if values is None:
            return [None] * len(grids)
        return mean_of_packed(values, [(t, h * w) for t, (h, w) in grids], self.merge_size)


@register("Qwen2_5_VLForConditionalGeneration")
class Qwen25VLAdapter(QwenVLAdapter):
    """Serves Qwen2.5-VL, whose tower works in windows: its order is turned back."""

    @property
    def _window(self) -> int:
        tower = self.visual
        return int(tower.window_size // self.merge_size // tower.patch_size)

    def _unit_order(self, grid: tuple[int, int]) -> Tensor:
        return window_order(1, grid, self._window)

    def _by_video(self, values: Tensor | None, grids: list[tuple[int, tuple[int, int]]]) -> list[Any]:
        worked = super()._by_video(values, grids)
        return [
            part if part is None else from_window_order(part, frames, grid, self._window)
            for part, (frames, grid) in zip(worked, grids, strict=True)
        ]
