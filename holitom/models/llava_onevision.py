"""LLaVA-OneVision: SigLIP tower, bilinear pooling by two, one newline token after each video."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.towers import Tower, clips, image_tower, last_used_layer, selected_layers

_POOLING = "transformers.models.llava_onevision.modeling_llava_onevision"


@register("LlavaOnevisionForConditionalGeneration")
class LlavaOnevisionAdapter(Adapter):
    """Serves every LLaVA-OneVision checkpoint in transformers' format (0.5B, 7B, 72B)."""

    families: ClassVar[dict[str, str]] = {"LlavaOnevisionForConditionalGeneration": "LLaVA-OneVision"}
    scores_from: ClassVar[str] = "received; last used layer; bilinear"
    windows: ClassVar[bool] = True

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The layer whose output ``vision_feature_layer`` selects (hidden state 0 is the embedding)."""
        layers = self.base.vision_tower.encoder.layers
        attention: nn.Module = last_used_layer(layers, selected_layers(arguments, self.model.config)).self_attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        whole = self.model.config.vision_feature_select_strategy == "full"
        return image_tower(
            self.base.vision_tower,
            arguments,
            self.model.config,
            projector=self.base.multi_modal_projector if whole else None,
        )

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each video of ``pixel_values_videos`` (videos, T, 3, H, W)."""
        videos, frames = clips(arguments).shape[:2]
        vision = self.model.config.vision_config
        side = math.ceil(vision.image_size // vision.patch_size / 2)
        scores = self._pool(patches.received, videos, frames)
        keys = self._pool(patches.keys, videos, frames)
        return [
            VideoLayout.contiguous(
                frames,
                (side, side),
                newlines=1,
                scores=None if scores is None else scores[video, :, :, 0],
                keys=None if keys is None else keys[video],
            )
            for video in range(videos)
        ]

    def shortcuts(self) -> dict[str, Callable[..., Any]]:
        """See :meth:`Adapter.shortcuts`; a subclass that pools in another way keeps its own."""
        own = getattr(type(self.base), "apply_pooling", None)
        return {"apply_pooling": self._pool_in_place} if getattr(own, "__module__", None) == _POOLING else {}

    def _pool_in_place(self, image_features: Tensor) -> Tensor:
        """The model's pooling of (F, P, D) without turning the features: channels stay last.

        transformers makes (F, D, h, w) contiguous first, for which CUDA starts one thread for each pooled place, which
        then loops over all frames and channels.
        """
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        pooled = math.ceil(side / 2)
        planes = image_features.view(len(image_features), side, side, -1).permute(0, 3, 1, 2)
        smaller = torch.nn.functional.interpolate(planes, size=(pooled, pooled), mode="bilinear")
        return smaller.permute(0, 2, 3, 1).reshape(len(image_features), pooled * pooled, -1)

    def unpack(self, output: Any) -> Tensor:
        """See :meth:`Adapter.unpack`."""
        rows: Tensor = output.pooler_output.flatten(0, 1)
        return rows

    def pack(self, rows: Tensor) -> Any:
        """See :meth:`Adapter.pack`."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=rows[None])

    def _pool(self, values: Tensor | None, videos: int, frames: int) -> Tensor | None:
        """(videos * T, P[, K]) -> (videos, T, N, K) by the model's own pooling, which the features went through."""
        if values is None:
            return None
        values = values if values.dim() == 3 else values[..., None]
        if self.model.config.vision_feature_select_strategy == "default":
            values = values[:, 1:]
        pooled: Tensor = self.base.apply_pooling(values)
        return pooled.view(videos, frames, pooled.shape[1], -1)
