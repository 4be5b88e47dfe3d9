"""InternVL: frames are images to the model, and the text in front of them ("Frame1: ") says that they form a video."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.labels import counts_up, frame_groups, join_frames
from holitom.models.patches import mean_of_blocks, of_each
from holitom.models.towers import Tower, TowerVideo, all_asked, last_used_layer, selected_layers, used_layers


@register("InternVLForConditionalGeneration")
class InternVLAdapter(Adapter):
    """Serves InternVL3 and 3.5 in transformers' format (``-hf``).

    A video is a row of two or more single-tile images whose labels differ in a number alone and start anew with the
    next video. Images with numbered labels and one tile each ("Image-1: ") look just the same.
    """

    families: ClassVar[dict[str, str]] = {"InternVLForConditionalGeneration": "InternVL3, 3.5"}
    scores_from: ClassVar[str] = "CLS; last used layer; mean of 2 x 2"
    encoder: ClassVar[str] = "get_image_features"
    modality: ClassVar[str] = "image"
    class_token: ClassVar[bool] = True

    @property
    def video_token_id(self) -> int:
        """The image token, which stands for frames as well."""
        return int(self.model.config.image_token_id)

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The layer whose output ``vision_feature_layer`` selects."""
        layers = self.base.vision_tower.encoder.layer
        attention: nn.Module = last_used_layer(layers, selected_layers(arguments, self.model.config)).attention
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        layers = self.base.vision_tower.encoder.layer
        tiles, grid, pooled = self._sizes(arguments)
        patches = pooled[0] * pooled[1]
        groups = [] if prompt is None else frame_groups(*self._images(*prompt), patches, tiles, counts_up)[1]
        each = 1 + grid[0] * grid[1]
        return Tower(
            layers,
            [layer.attention for layer in layers],
            tuple(range(-1, len(layers)))
            if all_asked(arguments, self.base.vision_tower)
            else used_layers(layers, selected_layers(arguments, self.model.config)),
            [TowerVideo.contiguous(group[0] * each, len(group), grid, leading=1) for group in groups],
            layouts=[group[0] for group in groups],
        )

    def _sizes(self, arguments: dict[str, Any]) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """The number of tiles in ``pixel_values`` (tiles, 3, H, W), and a tile's grid before and after pooling."""
        tiles, _, height, width = arguments["pixel_values"].shape
        size = self.model.config.vision_config.patch_size
        grid, side = (height // size[0], width // size[1]), round(1 / self.model.config.downsample_ratio)
        return tiles, grid, (grid[0] // side, grid[1] // side)

    def _images(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return ids, (ids == self.video_token_id) & valid

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout of one frame for each tile."""
        tiles, grid, pooled = self._sizes(arguments)
        side = grid[0] // pooled[0]

        def pool(values: Tensor | None) -> list[Tensor | None]:
            return of_each(None if values is None else mean_of_blocks(values[:, 1:], grid, side), [1] * tiles)

        return [
            VideoLayout.contiguous(1, pooled, scores=scores, keys=keys)
            for scores, keys in zip(pool(patches.received), pool(patches.keys), strict=True)
        ]

    def arrange(self, ids: Tensor, valid: Tensor, encoded: list[VideoLayout]) -> tuple[Tensor, list[VideoLayout]]:
        """Joins frames to videos by their labels."""
        return join_frames(*self._images(ids, valid), encoded, counts_up)
