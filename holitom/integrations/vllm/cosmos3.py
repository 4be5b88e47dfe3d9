"""The reasoner of Cosmos 3 in vLLM with compressed videos: Qwen3-VL in checkpoints of another layout."""

from __future__ import annotations

from vllm.model_executor.models.cosmos3 import Cosmos3ForConditionalGeneration, Cosmos3ProcessingInfo
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from holitom.integrations.vllm.qwen3_vl import Processor, TimedVideos
from holitom.integrations.vllm.vllm_names import checked


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Cosmos3ProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
@checked
class HoliTomCosmos3OmniForConditionalGeneration(TimedVideos, Cosmos3ForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with a method between the vision tower and the LLM."""
