"""LLaVA-NeXT-Video: CLIP tower, pooling by two, nothing but patches in the prompt."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.patches import mean_of_blocks, of_each
from holitom.models.towers import Tower, clips, image_tower, last_used_layer, selected_layers


@register("LlavaNextVideoForConditionalGeneration")
class LlavaNextVideoAdapter(Adapter):
    """Serves LLaVA-NeXT-Video (7B, 34B) in transformers' format."""

    families: ClassVar[dict[str, str]] = {
        "LlavaNextVideoForConditionalGeneration": "LLaVA-NeXT-Video",
        "VideoLlavaForConditionalGeneration": "Video-LLaVA",
    }
    scores_from: ClassVar[str] = "CLS; last used layer; mean of 2 x 2"
    class_token: ClassVar[bool] = True

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The layer whose output ``vision_feature_layer`` selects."""
        return self._attention(self.base.vision_tower, arguments)

    def _attention(self, tower: Any, arguments: dict[str, Any]) -> nn.Module:
        attention: nn.Module = last_used_layer(
            tower.encoder.layers, selected_layers(arguments, self.model.config)
        ).self_attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        return image_tower(self.base.vision_tower, arguments, self.model.config, leading=1)

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each video of ``pixel_values_videos`` (videos, T, 3, H, W)."""
        videos, frames, _, height, width = clips(arguments).shape
        size, stride = self.model.config.vision_config.patch_size, self.model.config.spatial_pool_stride
        grid = (height // size, width // size)
        pooled = (grid[0] // stride, grid[1] // stride)

        def pool(values: Tensor | None) -> list[Tensor | None]:
            return of_each(None if values is None else mean_of_blocks(values[:, 1:], grid, stride), [frames] * videos)

        return [
            VideoLayout.contiguous(frames, pooled, scores=scores, keys=keys)
            for scores, keys in zip(pool(patches.received), pool(patches.keys), strict=True)
        ]


@register("VideoLlavaForConditionalGeneration")
class VideoLlavaAdapter(LlavaNextVideoAdapter):
    """Serves Video-LLaVA: all patches of a frame follow its CLS token, which stays where it is."""

    scores_from: ClassVar[str] = "CLS; last used layer"

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The layer whose output ``vision_feature_layer`` selects."""
        return self._attention(self.base.video_tower, arguments)

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        return image_tower(self.base.video_tower, arguments, self.model.config, leading=1)

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each video of ``pixel_values_videos`` (videos, T, 3, H, W)."""
        videos, frames, _, height, width = clips(arguments).shape
        size = self.model.config.vision_config.patch_size
        grid = (height // size, width // size)
        count = grid[0] * grid[1]
        places = torch.arange(frames * count, device="cpu").view(frames, count)
        place = torch.cat([places.new_full((frames, 1), -1), places], dim=1).flatten()

        def part(values: Tensor | None) -> list[Tensor | None]:
            return of_each(None if values is None else values[:, 1:], [frames] * videos)

        return [
            VideoLayout(frames, grid, place, scores=scores, keys=keys)
            for scores, keys in zip(part(patches.received), part(patches.keys), strict=True)
        ]
