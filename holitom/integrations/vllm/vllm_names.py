"""Everything private or changing that this package uses of vLLM, in one place, each with its reason.

What overrides nothing fails in silence: vLLM would run, and prune or place videos in its own way. So each class that
vLLM is given goes through :func:`checked`.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

OVERRIDDEN: dict[str, str] = {
    "get_num_video_tokens": "LLaVA-OneVision: sizes placeholders and what vLLM measures its memory with",
    "get_max_video_tokens": "Transformers backend: sizes what vLLM measures its memory with",
    "_get_mm_fields_config": "Transformers backend: a video's ids come along",
    "_create_hf_to_vllm_mapper": "Transformers backend: weights are renamed as those of the stock architecture",
    "apply": "a request's own settings are taken from its options there",
    "embed_multimodal": "a video is compressed by its request's settings",
    "_get_prompt_updates": "a video's placeholders are counted there",
    "_get_mm_hashes": "what an encoded video is known by; the method is a part of it",
    "_maybe_apply_prompt_updates": "each video of a prompt is counted for /metrics there",
    "get_dummy_mm_inputs": "what vLLM measures its memory with is not counted",
    "_process_video_pixels": "LLaVA-OneVision: videos are encoded and compressed there",
    "_process_video_input": "elsewhere: videos are encoded and compressed there",
    "_postprocess_image_embeds_evs": "Qwen: vLLM's own pruning, switched off",
    "_postprocess_video_embeds_evs": "Qwen: vLLM's own pruning, switched off",
    "get_mrope_input_positions": "positions of a prompt, with marks where videos wait",
    "recompute_mrope_positions": "the marks of a chunk become positions there",
    "get_encoder_cudagraph_config": "Qwen: images and videos have CUDA graphs, although the model prunes",
    "prepare_encoder_cudagraph_capture_inputs": "Qwen: how many frames a graph has",
    "encoder_cudagraph_forward": "Qwen: queries and keys are copied inside the graph",
    "get_encoder_cudagraph_item_specs": "Qwen: which videos take a graph",
    "select_encoder_cudagraph_items": "Qwen: the times of videos come along",
    "encoder_eager_forward": "Qwen: videos that no graph holds",
    "postprocess_encoder_output": "Qwen: videos are compressed behind their graph",
}
"""Methods that classes of this package have in the place of vLLM's, by name: why."""

REQUEST_CHECKS = (
    "entrypoints.generate.base.protocol.validate_request_mm_kwargs",
    "renderers.online_renderer.validate_request_mm_kwargs",
)
"""One check by its two names: where it is defined, and where it is called for a chat."""
USED: dict[str, str] = {
    "model_executor.models.config.MODELS_CONFIG_MAP": "checks of settings stand in this table beside vLLM's own",
    "model_executor.models.config.VerifyAndUpdateConfig.verify_and_update_config": "what such a check is called by",
    "model_executor.models.config.VerifyAndUpdateConfig.verify_and_update_model_config": "what it is called by, too",
    **dict.fromkeys(REQUEST_CHECKS, "refuses the options of a request; settings of holitom pass it"),
    "model_executor.models.interfaces.supports_multimodal_pruning": "asked for the runner for CPUs",
    "config.multimodal.MultiModalConfig.is_multimodal_pruning_enabled": "so is this",
    "v1.worker.cpu_model_runner.CPUModelRunner.load_model": "the runner for CPUs forgets to ask whether a model prunes",
    "v1.worker.gpu_model_runner.GPUModelRunner.load_model": "asks, and for requires_sequential_video_encoding",
    "multimodal.encoder_budget.MultiModalBudget.get_dummy_encoder_profile_inputs": "the limit of the vision tower",
    "multimodal.processing.PromptUpdateDetails": "placeholders that remember how many there were",
    "multimodal.processing.inputs.ProcessorInputs": "its hf_processor_mm_kwargs are hashed",
    "model_executor.models.llava_onevision.LlavaOnevisionProcessingInfo._get_num_frame_tokens": "the grid of a frame",
    "model_executor.models.llava_onevision.LlavaOnevisionForConditionalGeneration._video_pixels_to_features": "encodes",
    "model_executor.models.llava_onevision.LlavaOnevisionForConditionalGeneration.apply_pooling": "pools scores, too",
    "model_executor.models.qwen3_vl.Qwen3VLMultiModalProcessor.get_video_repl": "the text between frames",
    "model_executor.models.transformers.multimodal.MultiModalProcessingInfo._get_max_video_tokens_for_frames": "what "
    "vLLM measures its memory with on the Transformers backend",
    "utils.gpu_sync_debug.gpu_sync_allowed": "positions go to the CPU once for each chunk with a video",
}
"""By dotted path inside the package ``vllm``: why it is used."""


def checked(cls: Class) -> Class:
    """A class that vLLM is given, after a look at what it overrides.

    Raises:
        RuntimeError: when vLLM has no method of that name in the stock class any more, or calls it with other
            arguments.
    """
    import vllm
    from vllm.model_executor.models.interfaces import SupportsMultiModalPruning

    ours = [base for base in cls.__mro__ if base.__module__.startswith("holitom.")]
    vllms = [*(base for base in cls.__mro__ if base.__module__.startswith("vllm.")), SupportsMultiModalPruning]
    for name, reason in OVERRIDDEN.items():
        mine = next((vars(base)[name] for base in ours if name in vars(base)), None)
        if mine is None:
            continue
        stock = next((vars(base)[name] for base in vllms if name in vars(base)), None)
        if stock is None or _lacks(mine, stock):
            had = "has no such method" if stock is None else f"calls it with {inspect.signature(stock)}"
            raise RuntimeError(
                f"{cls.__name__}.{name} of holitom ({reason}) stands in the place of vLLM's, and vLLM "
                f"{vllm.__version__} {had}: install a version that this holitom was tested with"
            )
    return cls


def _lacks(mine: Any, stock: Any) -> bool:
    """Whether ``stock`` takes an argument that ``mine`` does not."""
    taken = inspect.signature(mine).parameters
    kinds = {parameter.kind for parameter in taken.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL in kinds:
        return False
    return not inspect.signature(stock).parameters.keys() <= taken.keys()
