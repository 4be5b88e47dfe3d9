"""GLM-4.1V and GLM-4.5V: frames stand in the prompt as images, between the tokens that begin and end a video."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from holitom.models.base import VideoLayout, register
from holitom.models.qwen_vl import QwenVLAdapter


@register("Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "Glm46VForConditionalGeneration")
class Glm4vAdapter(QwenVLAdapter):
    """Serves GLM-4.1V, 4.5V and 4.6V. The timestamp after each frame stays, in order."""

    families: ClassVar[dict[str, str]] = {
        "Glm4vForConditionalGeneration": "GLM-4.1V",
        "Glm4vMoeForConditionalGeneration": "GLM-4.5V",
        "Glm46VForConditionalGeneration": "GLM-4.6V",
    }

    def arrange(self, ids: Tensor, valid: Tensor, encoded: list[VideoLayout]) -> tuple[Tensor, list[VideoLayout]]:
        """Image tokens inside a video are its placeholders; images of their own lie outside and stay whole."""
        config = self.model.config
        begun, ended = (ids == config.video_start_token_id).cumsum(1), (ids == config.video_end_token_id).cumsum(1)
        return (ids == config.image_token_id) & (begun > ended) & valid, encoded
