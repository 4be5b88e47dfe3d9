"""Kernels in Triton, for what takes many small operations otherwise. They run on GPUs that Triton can build for.

Each has plain operations where it is used, which give the same.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import torch

_log = logging.getLogger(__name__)
plain = False  # True: plain operations everywhere, to compare with


def find(device: torch.device) -> Any:
    """The module of kernels for tensors on a device, or None where plain operations have to do."""
    return None if plain or device.type != "cuda" else _compiled()


def promised(device: torch.device) -> bool:
    """Whether tensors on a device are met by kernels. "meta" stands for a GPU that has them."""
    return device.type == "meta" or find(device) is not None


@cache
def _compiled() -> Any:
    """Imports Triton and builds two small kernels: it needs a C compiler, and a GPU that it knows."""
    try:
        found = importlib.import_module("holitom.kernels.compiled")
        apart = torch.ones(1, 3, 3, dtype=torch.float32, device="cuda")
        first = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float32, device="cpu").to("cuda")
        index, _, _ = found.pick_farthest(apart, first, None, 2, 1, 0.0)
        if index.tolist() != [[1, 0]]:
            raise RuntimeError(f"a kernel that should pick [[1, 0]] picked {index.tolist()}")
        far = torch.zeros(3, 3, dtype=torch.float32, device="cuda")
        far[0, 2] = 1
        begins = found.cut_positions(torch.stack([far, 0 * far, 0 * far]), far[0, 2] / 2, 1, 3, 1)
        if begins.tolist() != [[0, 0, 0], [0, 0, 0], [2, 2, 0]]:
            raise RuntimeError(f"a kernel that should cut before frame 2 cut so: {begins.tolist()}")
    except Exception as error:  # whatever it is, plain operations give the same, later
        _log.warning("Triton's kernels cannot be used here, so that some methods take longer: %r", error)
        return None
    return found
