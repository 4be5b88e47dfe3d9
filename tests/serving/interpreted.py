"""vLLM's Model Runner V2, the default on GPUs, without one: Triton runs its kernels in its interpreter.

Triton looks for a driver of a GPU before it interprets anything, and vLLM for a driver of Triton. This one stands for
both, and knows no more than that there are tensors of torch on a CPU. What is interpreted is slow, and exact: the
kernels are vLLM's own.

    TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 python -m pytest tests/serving/test_equalities.py
"""

from __future__ import annotations

import os
import sys
from typing import Any

SWITCH = "VLLM_USE_V2_MODEL_RUNNER"
"""vLLM's own variable for its runner: "1" for V2."""


def wanted() -> bool:
    """Whether this process is to run Model Runner V2."""
    return os.environ.get(SWITCH) == "1"


def install() -> None:
    """Gives Triton its driver, before anything imports vLLM.

    Raises:
        RuntimeError: when Triton was not told to interpret before it was imported, or vLLM is imported already.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":  # Triton looks at it when it is imported, which torch may do
        raise RuntimeError(f"start Python with TRITON_INTERPRET=1 beside {SWITCH}=1")
    if "vllm" in sys.modules:
        raise RuntimeError("vLLM is imported already, and has found no driver of Triton")
    import torch
    from triton.backends import Backend, backends
    from triton.backends.driver import DriverBase

    class OnCpu(DriverBase):  # type: ignore[misc]
        """As much of a driver as is asked for when nothing is compiled."""

        @classmethod
        def is_active(cls) -> bool:
            return True

        def get_active_torch_device(self) -> Any:
            return torch.device("cpu")

        def get_current_target(self) -> Any:
            from triton.backends.compiler import GPUTarget

            return GPUTarget("cpu", 0, 1)

        def get_current_device(self) -> int:
            return 0

        def map_python_to_cpp_type(self, ty: str) -> str:
            raise NotImplementedError("nothing is compiled")

        def get_benchmarker(self) -> Any:
            raise NotImplementedError("nothing is tuned")

    torch._dynamo.config.disable = True  # nothing is compiled by torch either
    backends.clear()
    backends["cpu"] = Backend(compiler=None, driver=OnCpu)
    from vllm.model_executor.models import qwen3_vl

    # the interpreter keeps bfloat16 as integers and multiplies those: the tower takes vLLM's function without Triton
    qwen3_vl.HAS_TRITON = False
