"""Qwen2.5-VL in vLLM with compressed videos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from holitom.integrations.vllm.encoder_graphs import GraphedVideos
from holitom.integrations.vllm.positions import grid_places
from holitom.integrations.vllm.processing import VideoShape
from holitom.integrations.vllm.qwen_vl import QwenProcessor
from holitom.integrations.vllm.vllm_names import checked
from holitom.models.base import PatchRecord
from holitom.models.patches import from_window_order, mean_of_packed

_ROPE_TABLE = 4  # vLLM's table of rotary positions holds so many times the model's, because of videos' seconds


@checked
class Processor(QwenProcessor, Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """Placeholders of compressed videos."""

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> VideoShape:
        """Positions go on by seconds, or by the larger side of the grid."""
        shape = super().video_shape(number, items, kwargs)
        seconds = kwargs["video"][number].get("second_per_grid_ts")
        step = seconds_to_places(self.info.get_hf_config(), None if seconds is None else seconds.data)
        return dataclasses.replace(shape, places=math.ceil(shape.frames * step) + max(shape.grid))

    def check_places(self, places: int) -> None:
        """Positions beyond vLLM's table would end the engine. All of a prompt's text may stand behind the videos."""
        model = self.info.ctx.model_config
        last = places + model.max_model_len
        limit = _ROPE_TABLE * int(model.hf_text_config.max_position_embeddings)
        if last > limit:
            raise ValueError(
                f"the videos of this prompt take {places:,} positions, counted by their seconds; with up to "
                f"{model.max_model_len:,} tokens beside them, the model has {limit:,}: send frames that lie closer "
                "together"
            )


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
@checked
class HoliTomQwen2_5_VLForConditionalGeneration(GraphedVideos, Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        vision = self.config.vision_config
        if vision.depth - 1 not in vision.fullatt_block_indexes:
            raise ValueError(
                f"the last block of this Qwen2.5-VL's vision tower sees windows (fullatt_block_indexes = "
                f"{vision.fullatt_block_indexes} of {vision.depth} blocks), so it has no scores for whole frames"
            )
        self.attach_compressor(vllm_config)

    def video_places(self, grid: tuple[int, int, int], item: Mapping[str, Any]) -> np.ndarray:
        """Time goes on by seconds, as in vLLM without compression."""
        step = seconds_to_places(self.config, item.get("second_per_grid_ts"))
        return grid_places((np.arange(grid[0]) * step).astype(np.int64), grid[1:])

    def by_token(self, record: PatchRecord, frames: int, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """The tower works in windows: its order is turned back."""
        vision, side = self.config.vision_config, self.visual_side
        window = vision.window_size // side // vision.patch_size
        scores, keys = (
            None
            if values is None
            else from_window_order(mean_of_packed(values, [(frames, grid[0] * grid[1])], side)[0], frames, grid, window)
            for values in (record.received, record.keys)
        )
        return scores, keys


def seconds_to_places(config: Any, seconds: SupportsFloat | None) -> float:
    """By how many positions a video goes on in the seconds of one step, as in vLLM; unknown seconds are one."""
    return (1.0 if seconds is None else float(seconds)) * float(getattr(config.vision_config, "tokens_per_second", 1.0))
