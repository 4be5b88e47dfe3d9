"""Qwen3-VL and Qwen3.5: times between frames; Qwen3-VL adds features of earlier vision blocks in its first layers."""

from __future__ import annotations

from typing import ClassVar

from holitom.models.base import register
from holitom.models.qwen_vl import QwenVLAdapter


@register("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
class Qwen3VLAdapter(QwenVLAdapter):
    """Serves Qwen3-VL, dense and mixture of experts. Deepstack features are merged like the tokens they belong to."""

    families: ClassVar[dict[str, str]] = {
        "Qwen3VLForConditionalGeneration": "Qwen3-VL",
        "Qwen3VLMoeForConditionalGeneration": "Qwen3-VL MoE",
    }

    @property
    def first_inner_layer(self) -> int:
        """Behind the layers whose outputs deepstack features are added to."""
        return max(1, len(self.visual.deepstack_visual_indexes))


@register("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration")
class Qwen35Adapter(QwenVLAdapter):
    """Serves Qwen3.5. Most of its layers are linear attention, so only the stage before the LLM works."""

    families: ClassVar[dict[str, str]] = {
        "Qwen3_5ForConditionalGeneration": "Qwen3.5",
        "Qwen3_5MoeForConditionalGeneration": "Qwen3.5 MoE",
    }
    inner: ClassVar[bool] = False
