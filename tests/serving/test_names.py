"""Each private or changing name that the plugin uses of vLLM is there, in the version that is installed."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from holitom.integrations.vllm.architectures import ARCHITECTURES, OWN
from holitom.integrations.vllm.vllm_names import OVERRIDDEN, USED, checked


def classes() -> list[type]:
    """What vLLM is given: for each architecture a model, a processor and what sizes its videos."""
    found = []
    places = [(module, ARCHITECTURES[stock]) for stock, module in OWN.items()]
    places += [("transformers_backend", "HoliTomTransformers"), ("transformers_backend", "HoliTomTransformersMoE")]
    for module, name in places:
        model = getattr(importlib.import_module(f"holitom.integrations.vllm.{module}"), name)
        factories = model._processor_factory
        found += [model, factories.processor, factories.info]
    return [cls for cls in dict.fromkeys(found) if cls.__module__.startswith("holitom.")]


@pytest.mark.parametrize("path", USED)
def test_the_name_is_there(path: str):
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["vllm", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            assert hasattr(found, name), f"vllm.{path} is gone. It is used because: {USED[path]}"
            found = getattr(found, name)
        return
    pytest.fail(f"vllm.{path} is gone. It is used because: {USED[path]}")


def test_what_overrides_vllm_is_listed_and_nothing_else():
    overridden: set[str] = set()
    for cls in classes():
        assert checked(cls) is cls
        ours: set[str] = set()
        for base in cls.__mro__:
            if base.__module__.startswith("holitom."):
                ours |= {name for name, value in vars(base).items() if inspect.isfunction(value) and name[:2] != "__"}
        stock = next(base for base in cls.__mro__ if base.__module__.startswith("vllm."))
        overridden |= {name for name in ours if hasattr(stock, name)}
    assert overridden == OVERRIDDEN.keys()


def test_an_override_of_nothing_is_refused():
    model = classes()[0]
    stock = next(base for base in model.__mro__ if base.__module__.startswith("vllm."))

    def replaced(**members: Any) -> type:
        base = type(stock.__name__, (), {"__module__": "vllm.models", **members})
        return type(
            "HoliTomModel", (base,), {"__module__": "holitom.x", "_process_video_pixels": lambda self, inputs: 0}
        )

    checked(replaced(_process_video_pixels=lambda self, inputs: 0))
    with pytest.raises(RuntimeError, match=r"_process_video_pixels of holitom .* has no such method"):
        checked(replaced())
    with pytest.raises(RuntimeError, match=r"calls it with \(self, inputs, more\)"):
        checked(replaced(_process_video_pixels=lambda self, inputs, more: 0))
