"""Qwen3-VL, also as a mixture of experts, in vLLM with compressed videos.

Timestamps stand between frames, deepstack channels beside the features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from holitom.integrations.vllm.encoder_graphs import GraphedVideos
from holitom.integrations.vllm.positions import to_channels
from holitom.integrations.vllm.qwen_vl import QwenProcessor
from holitom.integrations.vllm.vllm_names import checked
from holitom.merge import Merge
from holitom.models.base import PatchRecord
from holitom.models.patches import mean_of_packed
from holitom.runtime.sequence import Span, row_merge


def video_ids(config: Any, tokenizer: Any, times: Sequence[float], patches: int) -> list[int]:
    """The ids of a whole video as vLLM writes it: for each frame its time, and its patches between two marks."""
    details = Qwen3VLMultiModalProcessor.get_video_repl(
        tokens_per_frame=[patches] * len(times),
        timestamps=times,
        tokenizer=tokenizer,
        vision_start_token_id=config.vision_start_token_id,
        vision_end_token_id=config.vision_end_token_id,
        video_token_id=config.video_token_id,
    )
    return list(details.full)


@checked
class Processor(QwenProcessor, Qwen3VLMultiModalProcessor):  # type: ignore[misc]
    """Placeholders of compressed videos, and of the text between their frames."""

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> Any:
        """The text between frames stays whole."""
        shape = super().video_shape(number, items, kwargs)
        times = _seconds(kwargs["video"][number]["timestamps"].data)
        text = video_ids(self.info.get_hf_config(), self.info.get_tokenizer(), times, patches=0)
        return type(shape)(shape.frames, shape.grid, text=len(text))


class TimedVideos(GraphedVideos):
    """Mixed into the models that write a time before each frame: Qwen3-VL, and Qwen3.5 without deepstack channels."""

    visual_dim: int
    multiscale_dim: int
    language_model: Any
    _tokenizer: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.attach_compressor(vllm_config)
        self._laid_out = functools.lru_cache(maxsize=32)(self._lay_out)  # many videos have the same times

    @property
    def embedding_width(self) -> int:
        """Features and deepstack channels."""
        return int(self.visual_dim + self.multiscale_dim)

    def _lay_out(self, times: tuple[float, ...], rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """A whole video's ids (S,) and places (3, S).

        Text goes on by one; each frame is an image of its own, and the text behind it goes on behind its larger side.
        """
        ids = np.array(video_ids(self.config, self._tokenizer, times, rows * columns))
        is_patch = ids == self.config.video_token_id
        side = max(rows, columns)
        begun = np.cumsum(is_patch & ~np.roll(is_patch, 1))  # frames, at each token
        places = np.broadcast_to(np.cumsum(~is_patch) - ~is_patch + begun * side, (3, len(ids))).copy()
        places[:, is_patch] += np.tile(np.indices((1, rows, columns)).reshape(3, -1), len(times)) - side
        return ids, places

    def video_places(self, grid: tuple[int, int, int], item: Mapping[str, Any]) -> np.ndarray:
        """See :meth:`_lay_out`."""
        places: np.ndarray = self._laid_out(_seconds(item["timestamps"]), *grid[1:])[1]
        return places

    def by_token(self, record: PatchRecord, frames: int, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Means over squares of patches, which follow each other."""
        scores, keys = (
            None if values is None else mean_of_packed(values, [(frames, grid[0] * grid[1])], self.visual_side)[0]
            for values in (record.received, record.keys)
        )
        return scores, keys

    def assemble(self, features: Tensor, merge: Merge, grid: tuple[int, int, int], item: Mapping[str, Any]) -> Tensor:
        """Merged tokens stand in the frame of their anchor, the text between frames stays, as with transformers."""
        device = features.device
        ids, positions = self._laid_out(_seconds(item["timestamps"]), *grid[1:])
        is_patch = ids == self.config.video_token_id
        columns = np.flatnonzero(is_patch)
        blocks = columns[:: grid[1] * grid[2]].repeat(grid[1] * grid[2])
        text = self.language_model.embed_input_ids(torch.from_numpy(ids).to(device, non_blocking=True))
        whole = features.new_zeros(len(ids), features.shape[1])
        whole[:, : text.shape[1]] = text
        place, run = (torch.from_numpy(each).to(device, non_blocking=True) for each in (columns, blocks))
        span = Span(place, run, merge)
        whole[span.columns] = features
        row, *_ = row_merge(len(ids), 0, [span], device)
        places = torch.from_numpy(positions).to(device, non_blocking=True)
        return torch.cat([row.apply(whole), to_channels(places[:, row.anchor], features.dtype)], dim=1)


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Qwen3VLProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
@checked
class HoliTomQwen3VLForConditionalGeneration(TimedVideos, Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=Qwen3VLMoeProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
@checked
class HoliTomQwen3VLMoeForConditionalGeneration(TimedVideos, Qwen3VLMoeForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""


def _seconds(timestamps: Sequence[float] | Tensor) -> tuple[float, ...]:
    return tuple(timestamps.tolist() if isinstance(timestamps, Tensor) else timestamps)
