"""HoliTom and the other methods with exact counts inside vLLM, as a plugin that vLLM finds by itself.

vLLM calls :func:`register` in every process it starts (the entry point ``holitom`` in the group
``vllm.general_plugins``). That adds architectures beside vLLM's own, which stay as they are; a server uses one when its
``hf_overrides`` ask for it, see :class:`ServingConfig`. vLLM is imported here only when vLLM itself asks.
"""

from __future__ import annotations

from holitom.integrations.vllm.config import (
    ARCHITECTURES,
    ServingConfig,
    command_line,
    engine_arguments,
    serving_architecture,
)

__all__ = [
    "ARCHITECTURES",
    "ServingConfig",
    "command_line",
    "engine_arguments",
    "register",
    "serving_architecture",
]


def register() -> None:
    """Adds the compressing architectures to vLLM's registry. Once or many times makes no difference.

    Their classes are named, not imported: vLLM imports the one it needs.
    """
    from vllm import ModelRegistry

    for name, module in _MODULES.items():
        if ARCHITECTURES[name] not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(ARCHITECTURES[name], f"{module}:{ARCHITECTURES[name]}")


_MODULES = {
    "LlavaOnevisionForConditionalGeneration": "holitom.integrations.vllm.llava_onevision",
    "Qwen2_5_VLForConditionalGeneration": "holitom.integrations.vllm.qwen2_5_vl",
    "Qwen3VLForConditionalGeneration": "holitom.integrations.vllm.qwen3_vl",
}
