"""Qwen2-VL, Qwen2.5-VL and what is built like them: any resolution, squares of 2 x 2 patches merged into one token."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.patches import from_window_order, mean_of_packed


@register("Qwen2VLForConditionalGeneration")
class QwenVLAdapter(Adapter):
    """Serves models whose tower takes the patches of all videos in one row, with ``video_grid_thw``."""

    families: ClassVar[dict[str, str]] = {
        "Qwen2VLForConditionalGeneration": "Qwen2-VL",
        "Qwen2_5_VLForConditionalGeneration": "Qwen2.5-VL",
    }
    scores_from: ClassVar[str] = "received; last block; mean of 2 x 2"

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last block."""
        attention: nn.Module = self.base.visual.blocks[-1].attn
        return attention

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
        return int(self.base.visual.spatial_merge_size)

    def _by_video(self, values: Tensor | None, grids: list[tuple[int, tuple[int, int]]]) -> list[Any]:
        if values is None:
            return [None] * len(grids)
        return mean_of_packed(values, [(t, h * w) for t, (h, w) in grids], self.merge_size)


@register("Qwen2_5_VLForConditionalGeneration")
class Qwen25VLAdapter(QwenVLAdapter):
    """Serves Qwen2.5-VL, whose tower works in windows: its order is turned back."""

    def _by_video(self, values: Tensor | None, grids: list[tuple[int, tuple[int, int]]]) -> list[Any]:
        tower = self.base.visual
        window = tower.window_size // self.merge_size // tower.patch_size
        worked = super()._by_video(values, grids)
        return [
            part if part is None else from_window_order(part, frames, grid, window)
            for part, (frames, grid) in zip(worked, grids, strict=True)
        ]
