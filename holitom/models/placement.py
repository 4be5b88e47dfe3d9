"""Where a model's parts lie and what they compute in. Parameters may be elsewhere: on disk, or nowhere yet ("meta")."""

from __future__ import annotations

from typing import Any

import torch


def input_device(model: Any) -> torch.device:
    """Where a model takes its ids: its embedding's device, or the one that accelerate's hook loads it to."""
    embedding = model.get_input_embeddings()
    device: torch.device = embedding.weight.device
    if device.type != "meta":
        return device
    for module in (embedding, model):
        execution = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if execution is not None:
            return torch.device("cuda", execution) if isinstance(execution, int) else torch.device(execution)
    raise ValueError(f"the input embedding of {type(model).__name__} lies on meta and nothing loads it: load the model")


def dtype_of(model: torch.nn.Module) -> torch.dtype:
    """What a model computes in: the dtype of its first floating-point parameter (quantised ones are integers)."""
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
