"""Which model classes are served with vLLM, and how. A table, read without vLLM.

A class has an own architecture of holitom, over vLLM's own model; or it is served on vLLM's Transformers backend, which
runs the model of transformers itself, with holitom's adapter for it (:mod:`~holitom.models`); or both.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Serving = Literal["own class", "Transformers backend", "no"]

OWN: Mapping[str, str] = MappingProxyType(
    {
        "Cosmos3OmniForConditionalGeneration": "cosmos3",
        "LlavaOnevisionForConditionalGeneration": "llava_onevision",
        "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
        "Qwen3VLForConditionalGeneration": "qwen3_vl",
        "Qwen3VLMoeForConditionalGeneration": "qwen3_vl",
        "Qwen3_5ForConditionalGeneration": "qwen3_5",
        "Qwen3_5MoeForConditionalGeneration": "qwen3_5",
    }
)
"""Classes with an architecture of holitom, and the module that it is in."""
CALLED: Mapping[str, str] = MappingProxyType({"Cosmos3ForConditionalGeneration": "Cosmos3OmniForConditionalGeneration"})
"""Architectures that vLLM and published checkpoints call otherwise than transformers, and its names."""
BACKEND: tuple[str, ...] = (
    "Exaone4_5_ForConditionalGeneration",
    "Glm46VForConditionalGeneration",
    "Glm4vForConditionalGeneration",
    "Glm4vMoeForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "VideoLlama3ForConditionalGeneration",
)
"""Classes that are served on the Transformers backend where they have no own class, or where it is asked for."""
RANKS = ("LlavaOnevisionForConditionalGeneration",)
"""Classes that were shown on the Transformers backend with tensor parallelism (``tests/serving/test_ranks.py``)."""
ONE_AXIS = (
    "Exaone4_5_ForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "VideoLlama3ForConditionalGeneration",
)
"""Served classes whose rotary positions have one axis: vLLM counts them on without gaps."""
_NO_COUNT = "its processor in transformers does not count video tokens, which the Transformers backend asks it for"
_TALKER = (
    "its checkpoints hold a talker beside the thinker, which the Transformers backend cannot build, and there is "
    "no own class"
)
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "CohereCompassForConditionalGeneration": "vLLM's own class for it takes images alone, and the Transformers "
        "backend leaves out what its vision tower adds to the first decoder layers (deepstack)",
        "HyperCLOVAXVisionV2ForConditionalGeneration": "the Transformers backend leaves out that its logits are scaled",
        "Gemma4ForConditionalGeneration": "its decoder looks up a further embedding by each token's id, which the "
        "Transformers backend does not hand on",
        "InternVLForConditionalGeneration": f"{_NO_COUNT} (to it, frames are images)",
        "SmolVLMForConditionalGeneration": f"{_NO_COUNT} (to it, frames are images)",
        "Lfm3VlForConditionalGeneration": "it needs transformers 5.24, newer than vLLM 0.32 was tested with; its "
        "decoder's convolutions keep states that the Transformers backend has no cache for",
        "LlavaNextVideoForConditionalGeneration": _NO_COUNT,
        "Qwen2_5OmniThinkerForConditionalGeneration": _TALKER,
        "Qwen3OmniMoeThinkerForConditionalGeneration": _TALKER,
        "VideoLlavaForConditionalGeneration": _NO_COUNT,
    }
)
"""Classes that run with transformers alone, and why."""
_OF_A_THINKER = ("Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration")
"""What checkpoints call the models around a thinker."""
ARCHITECTURES: Mapping[str, str] = MappingProxyType({name: f"HoliTom{name}" for name in sorted({*OWN, *BACKEND})})
"""Stock architectures and the ones that compress in their place."""
ON_BACKEND: Mapping[str, str] = MappingProxyType({name: f"HoliTomTransformers{name}" for name in BACKEND})
"""The same, always on the Transformers backend."""


def served_by(name: str) -> Serving:
    """How a class of transformers is served with vLLM."""
    return "own class" if name in OWN else "Transformers backend" if name in BACKEND else "no"


def on_backend(architecture: str) -> bool:
    """Whether an architecture of holitom is one on the Transformers backend."""
    return architecture in ON_BACKEND.values() or stock_architecture(architecture) not in OWN


def stock_architecture(architecture: str) -> str:
    """The stock architecture in whose place one of holitom's compresses."""
    return architecture.removeprefix("HoliTom").removeprefix("Transformers")


def serving_architecture(architecture: str, backend: bool = False) -> str:
    """The architecture that compresses in place of a stock one.

    Args:
        architecture: a stock one; one of holitom's is returned as it is.
        backend: take the Transformers backend also where there is an own class.

    Raises:
        ValueError: for one that is not supported, with the reason and those that are.
    """
    architecture = CALLED.get(architecture, architecture)
    if architecture in {*ARCHITECTURES.values(), *ON_BACKEND.values()}:
        return architecture
    if architecture not in ARCHITECTURES:
        why = REFUSED.get(architecture, _TALKER if architecture in _OF_A_THINKER else "")
        why = f": {why}" if why else ""
        raise ValueError(
            f"holitom does not serve {architecture!r} with vLLM{why}. It serves {', '.join(ARCHITECTURES)}. "
            "Other families run with transformers (see `holitom models`)"
        )
    if backend and architecture not in ON_BACKEND:
        raise ValueError(
            f"{architecture} has an own class, and is not served on vLLM's Transformers backend, which does that for "
            f"{', '.join(ON_BACKEND)}: leave the backend out"
        )
    return ON_BACKEND[architecture] if backend else ARCHITECTURES[architecture]
