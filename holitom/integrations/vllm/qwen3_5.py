"""Qwen3.5 in vLLM with compressed videos, dense and mixture of experts: Qwen3-VL's videos before another decoder."""

from __future__ import annotations

from vllm.model_executor.models.qwen3_5 import (
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeProcessingInfo,
    Qwen3_5ProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from holitom.integrations.vllm.qwen3_vl import Processor, TimedVideos
from holitom.integrations.vllm.vllm_names import checked


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Qwen3_5ProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
@checked
class HoliTomQwen3_5ForConditionalGeneration(TimedVideos, Qwen3_5ForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=Qwen3_5MoeProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
@checked
class HoliTomQwen3_5MoeForConditionalGeneration(TimedVideos, Qwen3_5MoeForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""
