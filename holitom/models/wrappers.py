"""What people wrap models in: PEFT, DDP, ``torch.compile``, a pipeline, and so on."""

from __future__ import annotations

from typing import Any

from torch import nn

from holitom.models.base import adapter_class, adapter_for

_INSIDE = ("_orig_mod", "module", "base_model", "model", "thinker")


def config_of_part(config: Any) -> Any:
    """The config of the model that sees videos: of Qwen-Omni the thinker's, with how the weights are quantised."""
    part, quantized = getattr(config, "thinker_config", None), getattr(config, "quantization_config", None)
    if part is None:
        return config
    if quantized is not None and getattr(part, "quantization_config", None) is None:
        part.quantization_config = quantized
    return part


def find_model(wrapped: Any) -> Any:
    """The supported model in what people wrap models in: PEFT, DDP, ``torch.compile``, a pipeline, and so on.

    Of Qwen-Omni it is the thinker.

    Raises:
        TypeError: when there is none, or a wrapper copies the model for each device.
    """
    model, seen = wrapped, list[Any]()
    while model is not None and not any(model is before for before in seen):
        if adapter_class(model) is not None:
            return model
        seen.append(model)
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise TypeError(
                "DataParallel copies the model for each device at each call, which a session cannot follow: use "
                "DistributedDataParallel, or pass model.module and call that"
            )
        inside = (vars(model).get("_modules") or {}) if isinstance(model, nn.Module) else vars(model)
        model = next((inside[name] for name in _INSIDE if name in inside), None)
    if len(seen) == 1:
        adapter_for(wrapped)
    raise TypeError(
        f"found no supported model in {type(wrapped).__name__} "
        f"(looked at {', '.join(type(each).__name__ for each in seen)}): "
        "pass the transformers model itself, the ...ForConditionalGeneration"
    )
