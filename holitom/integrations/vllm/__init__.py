"""HoliTom and the other methods with exact counts inside vLLM, as a plugin that vLLM finds by itself.

vLLM calls :func:`register` in every process it starts (the entry point ``holitom`` in the group
``vllm.general_plugins``). That adds architectures beside vLLM's own, which stay as they are; a server uses one when its
``hf_overrides`` ask for it, see :class:`ServingConfig`. vLLM is imported here only when vLLM itself asks.
"""

from __future__ import annotations

from holitom.integrations.vllm.architectures import ARCHITECTURES, serving_architecture
from holitom.integrations.vllm.config import ServingConfig, command_line, engine_arguments

__all__ = [
    "ARCHITECTURES",
    "ServingConfig",
    "command_line",
    "engine_arguments",
    "register",
    "serving_architecture",
]


def register() -> None:
    """Adds the compressing architectures to vLLM's registry. Once or many times makes no difference."""
    from holitom.integrations.vllm.start import add_architectures, mend_cpu_runner

    add_architectures()
    mend_cpu_runner()
