"""LFM3-VL: steps of two frames with a time before each, as in Qwen3-VL; a hybrid tower and a hybrid decoder."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from holitom.models.base import register
from holitom.models.qwen_vl import QwenVLAdapter
from holitom.models.towers import Tower


@register("Lfm3VlForConditionalGeneration")
class Lfm3VlAdapter(QwenVLAdapter):
    """Serves LFM3-VL. Its decoder mixes short convolutions and sliding attention with attention to everything, so
    tokens are merged before the LLM alone."""

    families: ClassVar[dict[str, str]] = {"Lfm3VlForConditionalGeneration": "LFM3-VL"}
    inner: ClassVar[bool] = False
    scores_from: ClassVar[str] = "received; last attention layer; mean of 2 x 2"

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last layer that is attention and no convolution."""
        attention = [layer.self_attn for layer in self.base.vision_tower.layers if layer.is_attention_layer]
        return attention[-1] if attention else None

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        blocks = self.base.vision_tower.layers
        return Tower(
            blocks,
            [block.self_attn if block.is_attention_layer else None for block in blocks],
            (len(blocks) - 1,),
            self._tower_videos(arguments),
            [(block.conv.in_proj, block.conv.out_proj) for block in blocks if not block.is_attention_layer],
        )

    @property
    def merge_size(self) -> int:
        """The side of a square of patches that becomes one token."""
        return int(self.base.vision_tower.spatial_merge_size)
