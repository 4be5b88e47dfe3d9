"""SmolVLM: frames are images to the model, with a time in front of each; images of zeros are padding."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.labels import join_frames, tells_time
from holitom.models.patches import mean_of_blocks, of_each


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

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout of one frame for each image of ``pixel_values`` (B, images, 3, H, W) that is no padding."""
        height, width = arguments["pixel_values"].shape[-2:]
        size, side = self.model.config.vision_config.patch_size, self.model.config.scale_factor
        grid = (height // size, width // size)
        pooled = (grid[0] // side, grid[1] // side)
        images = sum(len(row) for row in output.pooler_output) // (pooled[0] * pooled[1])

        def pool(values: Tensor | None) -> list[Tensor | None]:
            return of_each(None if values is None else mean_of_blocks(values, grid, side), [1] * images)

        return [
            VideoLayout.contiguous(1, pooled, scores=scores, keys=keys)
            for scores, keys in zip(pool(patches.received), pool(patches.keys), strict=True)
        ]

    def arrange(self, ids: Tensor, valid: Tensor, encoded: list[VideoLayout]) -> tuple[Tensor, list[VideoLayout]]:
        """Joins frames to videos by the times in front of them."""
        return join_frames(ids, (ids == self.video_token_id) & valid, encoded, tells_time)
