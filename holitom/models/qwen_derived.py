"""Models that are built of Qwen's vision towers or decoders under names of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from holitom.models.base import register
from holitom.models.qwen3_vl import Qwen3VLAdapter
from holitom.models.qwen_vl import Qwen25VLAdapter


@register("Exaone4_5_ForConditionalGeneration")
class Exaone45Adapter(Qwen25VLAdapter):
    """Serves EXAONE 4.5: Qwen2.5-VL's tower; some layers of its decoder see a sliding window."""

    families: ClassVar[dict[str, str]] = {"Exaone4_5_ForConditionalGeneration": "EXAONE 4.5"}
    inner: ClassVar[bool] = False


@register("HyperCLOVAXVisionV2ForConditionalGeneration")
class HyperClovaXAdapter(Qwen25VLAdapter):
    """Serves HyperCLOVA X (vision, version 2): Qwen2.5-VL's tower, and a linear projector behind it."""

    families: ClassVar[dict[str, str]] = {"HyperCLOVAXVisionV2ForConditionalGeneration": "HyperCLOVA X"}

    @property
    def visual(self) -> Any:
        """The vision tower."""
        return self.base.vision_model


@register("Cosmos3OmniForConditionalGeneration")
class Cosmos3Adapter(Qwen3VLAdapter):
    """Serves the reasoner of Cosmos 3, which is Qwen3-VL."""

    families: ClassVar[dict[str, str]] = {"Cosmos3OmniForConditionalGeneration": "Cosmos 3"}


@register("CohereCompassForConditionalGeneration")
class CohereCompassAdapter(Qwen3VLAdapter):
    """Serves Cohere Compass: Qwen3-VL's tower; each kind of layer of its decoder has rotary positions of its own."""

    families: ClassVar[dict[str, str]] = {"CohereCompassForConditionalGeneration": "Cohere Compass"}
    inner: ClassVar[bool] = False
