"""Models by name with random weights: the published shapes, built where they will run, nothing downloaded.

Time and memory do not depend on what weights say, only on how many there are. What a model would answer, and how many
tokens a method finds alike, do: a preset measures cost, never quality.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from holitom.video.torchvision import hide_broken_torchvision

SCALE = 0.02  # standard deviation of the weights, as the models were initialised

_SUMMANDS = tuple(  # what ends a block's attention or MLP, by family
    f".{name}.weight" for name in ("o_proj", "down_proj", "out_proj", "fc2", "attn.proj", "mlp.linear_fc2")
)


@dataclass(frozen=True)
class Preset:
    """A model's published shape.

    Attributes:
        config: for ``AutoConfig.for_model``, the model type included.
        side: pixels of a square frame, as the model's processor would hand it over.
        source: the checkpoint whose config this is.
    """

    config: Mapping[str, Any]
    side: int
    source: str


SHAPES = Path(__file__).parent.parent / "assets" / "presets.json"
PRESETS = {name: Preset(**values) for name, values in json.loads(SHAPES.read_text("utf-8")).items()}
"""The configs as published, with small ids for the placeholders."""


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: when there is none, naming all.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def config(name: str) -> Any:
    """The preset's transformers config."""
    from transformers import AutoConfig

    values = dict(preset(name).config)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def build(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    attention: str = "sdpa",
    seed: int = 0,
) -> Any:
    """The preset's model with random weights, made on the device itself; it never ends an answer by itself.

    Args:
        name: of the preset.
        device: where the weights are made.
        dtype: of the weights.
        attention: "sdpa", "eager", "flash_attention_2", ...
        seed: of the random weights.

    Raises:
        ValueError: for an unknown name.
        RuntimeError: when the device's memory is too small.
    """
    hide_broken_torchvision()
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    # Weights are filled once, in place, below: torch's own initialisation would cost a pass over all of them more.
    with torch.device(device), no_init_weights():
        model = AutoModelForImageTextToText.from_config(config(name), dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    fill(model, seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Random matrices, norms of one, biases of zero, in place.

    What a block adds to the residual stream is scaled down by the root of the number of such summands, as in GPT-2:
    otherwise a deep random tower makes all patches alike, and a method would find nothing but static tokens.
    """
    generators: dict[torch.device, torch.Generator] = {}
    summands = [name for name, _ in model.named_parameters() if name.endswith(_SUMMANDS)]
    inside = sum("language_model." in name for name in summands)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1 and name.endswith("weight"):
            parameter.fill_(1)
        else:
            device, scale = parameter.device, SCALE
            if name.endswith(_SUMMANDS):
                scale *= (inside if "language_model." in name else len(summands) - inside) ** -0.5
            generator = generators.setdefault(device, torch.Generator(device).manual_seed(seed))
            parameter.normal_(std=scale, generator=generator)
