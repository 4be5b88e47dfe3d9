"""SmolVLM: frames are images to the model, with a time in front of each; images of zeros are padding."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.labels import frame_groups, join_frames, tells_time
from holitom.models.patches import mean_of_blocks, of_each
from holitom.models.towers import Tower, TowerVideo


@register("SmolVLMForConditionalGeneration")
class SmolVLMAdapter(Adapter):
    """Serves SmolVLM and SmolVLM2. A video is a row of two or more single images with "Frame from 00:01:" between."""

    families: ClassVar[dict[str, str]] = {"SmolVLMForConditionalGeneration": "SmolVLM2"}
    scores_from: ClassVar[str] = "received; last layer; mean of squares"
    encoder: ClassVar[str] = "get_image_features"
    modality: ClassVar[str] = "image"

    @property
    def video_token_id(self) -> int:
        """The image token, which stands for frames as well."""
        return int(self.model.config.image_token_id)

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last layer."""
        attention: nn.Module = self.base.vision_model.encoder.layers[-1].self_attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        blocks = self.base.vision_model.encoder.layers
        grid, pooled = self._grids(arguments)
        groups: list[list[int]] = []
        if prompt is not None:
            images = int((arguments["pixel_values"] != 0).flatten(2).any(-1).sum())
            groups = frame_groups(*self._images(*prompt), pooled[0] * pooled[1], images, tells_time)[1]
        each = grid[0] * grid[1]
        return Tower(
            blocks,
            [block.self_attn for block in blocks],
            (len(blocks) - 1,),
            [TowerVideo.contiguous(group[0] * each, len(group), grid) for group in groups],
            layouts=[group[0] for group in groups],
        )

    def _grids(self, arguments: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
        """An image's grid of patches before and after pooling; ``pixel_values`` is (B, images, 3, H, W)."""
        height, width = arguments["pixel_values"].shape[-2:]
        size, side = self.model.config.vision_config.patch_size, self.model.config.scale_factor
        grid = (height // size, width // size)
        return grid, (grid[0] // side, grid[1] // side)

    def _images(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return ids, (ids == self.video_token_id) & valid

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout of one frame for each image of ``pixel_values`` (B, images, 3, H, W) that is no padding."""
        grid, pooled = self._grids(arguments)
        side = self.model.config.scale_factor
        images = sum(len(row) for row in output.pooler_output) // (pooled[0] * pooled[1])

        def pool(values: Tensor | None) -> list[Tensor | None]:
            return of_each(None if values is None else mean_of_blocks(values, grid, side), [1] * images)

        return [
            VideoLayout.contiguous(1, pooled, scores=scores, keys=keys)
            for scores, keys in zip(pool(patches.received), pool(patches.keys), strict=True)
        ]

    def arrange(self, ids: Tensor, valid: Tensor, encoded: list[VideoLayout]) -> tuple[Tensor, list[VideoLayout]]:
        """Joins frames to videos by the times in front of them."""
        return join_frames(*self._images(ids, valid), encoded, tells_time)
