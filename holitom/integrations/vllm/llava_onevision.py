"""LLaVA-OneVision in vLLM with compressed videos. Positions are one-dimensional and close up by themselves."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from holitom.integrations.vllm.compressor import Compressor
from holitom.integrations.vllm.config import ServingConfig
from holitom.integrations.vllm.processing import CompressedVideos, VideoShape
from holitom.integrations.vllm.request import RequestSettings
from holitom.integrations.vllm.vllm_names import checked


@checked
class ProcessingInfo(LlavaOnevisionProcessingInfo):  # type: ignore[misc]
    """Sizes of compressed videos, which vLLM also measures its memory by."""

    @property
    def frame_grid(self) -> tuple[int, int]:
        """(h, w) of a frame after pooling."""
        tokens: int = self._get_num_frame_tokens(image_width=1, image_height=1)  # frames are square, whatever comes in
        side = round(tokens**0.5)
        return side, side

    def get_num_video_tokens(self, *, image_width: int, image_height: int, num_frames: int) -> int:
        """What the method keeps, and one newline."""
        return ServingConfig.of_hf_config(self.get_hf_config()).token_count(num_frames, self.frame_grid) + 1


@checked
class Processor(CompressedVideos, LlavaOnevisionMultiModalProcessor):  # type: ignore[misc]
    """Placeholders of compressed videos."""

    @property
    def video_token(self) -> int:
        """The id of ``<video>``."""
        return int(self.info.get_hf_config().video_token_index)

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> VideoShape:
        """All frames have the same grid; one newline ends a video."""
        return VideoShape(items["video"].get_num_frames(number), self.info.frame_grid, text=1)


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=LlavaOnevisionDummyInputsBuilder)
@checked
class HoliTomLlavaOnevisionForConditionalGeneration(RequestSettings, LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""

    # transformers 5.19 leaves vision_model out of names when it saves; checkpoints on the hub have it
    hf_to_vllm_mapper = LlavaOnevisionForConditionalGeneration.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_regex={re.compile(r"vision_tower\.(?!vision_model\.)"): "vision_tower.vision_model."}
    )
    requires_sequential_video_encoding = True  # vLLM budgets by what is left of videos: encode them one by one

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        tower = getattr(self.vision_tower, "vision_model", self.vision_tower)
        layers = getattr(getattr(tower, "encoder", None), "layers", None)
        # vLLM builds the tower up to the last layer that is used
        attention = None if layers is None else layers[-1].self_attn.attn
        self.compressor = Compressor.of(vllm_config, self.config, attention)

    def _process_video_pixels(self, inputs: Any) -> list[Tensor]:
        """A list of (M + 1, D): the merged tokens of each video and its newline."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        patches += self.config.vision_feature_select_strategy == "default"  # the class token
        merged = []
        for clip in inputs["pixel_values_videos"]:
            encode = functools.partial(self._encode, clip)
            features, record = self.compressor.encode(encode, len(clip), patches, rows=1)
            scores, keys = self._pool(record.received), self._pool(record.keys)
            side = round((len(features) // len(clip)) ** 0.5)
            merge = self.compressor.merge(
                features, len(clip), (side, side), None if scores is None else scores[..., 0], keys
            )
            merged.append(torch.cat([merge.apply(features), self.image_newline[None]]))
        return merged

    def _encode(self, clip: Any, first: int, last: int) -> Tensor:
        """The features of the frames first..last - 1 of a video, projected and pooled."""
        frames = clip[first:last] if isinstance(clip, Tensor) else torch.stack(list(clip[first:last]))
        features: Tensor = self._video_pixels_to_features(self.vision_tower, frames)
        return features.flatten(0, 1)

    def _pool(self, values: Tensor | None) -> Tensor | None:
        """(T, P[, K]) -> (T, N, K) by the model's own pooling, which the features went through."""
        if values is None:
            return None
        values = values if values.dim() == 3 else values[..., None]
        if self.config.vision_feature_select_strategy == "default":
            values = values[:, 1:]
        pooled: Tensor = self.apply_pooling(values)
        return pooled
