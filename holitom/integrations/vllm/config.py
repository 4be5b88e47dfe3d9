"""What a server is told: which method compresses its videos. Checked here, before and without vLLM.

The settings travel in vLLM's ``hf_overrides`` under the key ``holitom``, because the Hugging Face config is what both
the processor (which sizes placeholders) and the model (which fills them) see, in every process.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from typing_extensions import Self

from holitom.integrations.vllm.architectures import ARCHITECTURES, serving_architecture
from holitom.methods.base import Method
from holitom.methods.chain import Chain
from holitom.methods.registry import build, method_class, names, parse, split_text

KEY = "holitom"
SERVING_DEFAULTS: Mapping[str, Any] = MappingProxyType({"exact": True, "layer": None})
OWN_COUNTS = ("pruning_rate", "dominant", "contextual")  # settings that bring a count of their own
_DEPTH = 1000  # of the decoder that is asked whether a method has inner stages
_NOT_INSIDE = (
    "vLLM cannot do that: its scheduler and its KV cache count the tokens of a request once for all layers (inner "
    "stages run with transformers)"
)
_NOT_ASKED = (
    "vLLM encodes a video, and keeps what it made of it, without the text of any request (methods that look at the "
    "question run with transformers)"
)
_PROBE = (4, (14, 14))  # a video whose count shows whether a method has exact ones


@dataclass(frozen=True)
class ServingConfig:
    """One method with an exact token count, as a vLLM server applies it to every video.

    Methods that offer ``exact=True`` are used with it, and ``layer`` (of methods with an inner stage) is None, unless
    the settings say otherwise; what cannot be served is refused here.

    Args:
        method: the method, with all its settings.

    Raises:
        TypeError: for what is no method.
        ValueError: for a method that has no stage before the LLM, merges inside it, or whose token count depends on the
            content; each says what works.
    """

    method: Method

    architectures: ClassVar[Mapping[str, str]] = ARCHITECTURES
    """vLLM's architectures and the ones that compress in their place."""

    def __post_init__(self) -> None:
        method = self.method
        if not isinstance(method, Method):
            raise TypeError(f"ServingConfig takes a method, got {method!r}: ServingConfig.parse reads settings")
        if method.layers(_DEPTH):
            instead = (
                "layer=None"
                if "before" in method.stages and "layer" in _fields(type(method))
                else f"one of {_servable()}"
            )
            raise ValueError(f"{method.name} would merge tokens inside the LLM, and {_NOT_INSIDE}. Use {instead}")
        if "before" not in method.stages:
            raise ValueError(
                f"{method.name} has no stage before the LLM, the one that vLLM can have. Use {_servable()}"
            )
        if "question" in method.needs:
            raise ValueError(f"{method.name} looks at the question, and {_NOT_ASKED}. Use one of {_servable()}")
        if method.mass:
            raise ValueError(
                f"vLLM's attention has no number for each key, which mass=true adds: leave it out of {method.name}"
            )
        if "frame_embeddings" in method.needs:
            raise ValueError(f"{method.name} asks for frame embeddings, which vLLM's vision towers do not give")
        try:
            method.token_count(*_PROBE)
        except ValueError as error:
            raise ValueError(
                f"vLLM reserves a video's places before it has seen the video, so its token count must be known from "
                f"its shape; with these settings that of {method.name} is not: {error}"
            ) from error

    # from and to settings ---------------------------------------------------------------------------------------

    @classmethod
    def of(cls, name: str, **settings: Any) -> Self:
        """The method ``name`` with some settings, the others as serving needs them.

        Raises:
            TypeError: naming the setting of a wrong type.
            ValueError: naming the unknown method or setting, or the value, and what would work.
        """
        first, chained, behind = (part.strip() for part in name.partition("|"))
        if chained:
            if "tower" not in method_class(split_text(first)[0]).stages:
                raise ValueError(f"{name!r} has a stage inside the LLM, and {_NOT_INSIDE}. Use one of {_servable()}")
            return cls(Chain.of(parse(first), cls.parse(behind, **settings).method))
        kind = method_class(name)
        if kind.stages == ("tower",):
            raise ValueError(
                f"{name} works inside the vision tower alone, and a server compresses before the LLM: put a method for "
                f"that behind it, as in '{name}|holitom:retention=0.1'. It can be one of {_servable()}"
            )
        if "before" not in kind.stages:
            raise ValueError(f"{name} works inside the LLM alone, and {_NOT_INSIDE}. Use one of {_servable()}")
        wanted = {key: value for key, value in SERVING_DEFAULTS.items() if key in _fields(kind)}
        if _own_count(name, settings):
            wanted.pop("exact", None)
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        return cls(build(name, {**wanted, **given}))

    @classmethod
    def parse(cls, setting: str | Mapping[str, Any], **more: Any) -> Self:
        """From text (``"visionzip:retention=0.1"``) or a mapping (``{"method": "visionzip", "retention": 0.1}``).

        In front may stand a method inside the vision tower: ``"renewal|visionzip:retention=0.1"``, or both under
        ``"tower"`` and ``"before"``.

        Args:
            setting: text or a mapping.
            more: further settings, which must not be given twice.

        Raises:
            TypeError: for settings of a wrong type.
            ValueError: naming what is wrong and what would work.
        """
        if isinstance(setting, str) and "|" in setting:
            return cls.of(setting, **more)
        if isinstance(setting, Mapping) and set(setting) == {"tower", "before"}:
            return cls(Chain.of(parse(setting["tower"]), cls.parse(setting["before"], **more).method))
        if isinstance(setting, str):
            name, settings = split_text(setting)
        elif isinstance(setting, Mapping):
            settings = {str(key): value for key, value in setting.items()}
            name = settings.pop("method", None)
            if not isinstance(name, str):
                raise ValueError(
                    f"the settings of a server name their method under 'method', as in "
                    f'{{"method": "holitom", "retention": 0.1}}; got {dict(setting)!r}'
                )
        else:
            raise TypeError(f"the settings of a server are a mapping or text, got {setting!r}")
        twice = settings.keys() & more.keys()
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is given twice: in {setting!r} and beside it")
        return cls.of(name, **settings, **more)

    @classmethod
    def of_hf_config(cls, config: Any) -> Self:
        """From a Hugging Face config that ``hf_overrides`` has put the settings into.

        Raises:
            TypeError: as :meth:`parse`.
            ValueError: when there are none, or as :meth:`parse`.
        """
        setting = getattr(config, KEY, None)
        if setting is None:
            raise ValueError(
                f"an architecture of holitom needs its method's settings beside it in hf_overrides, for example "
                f'{{"architectures": ["HoliTom..."], "{KEY}": {{"method": "holitom", "retention": 0.1}}}}'
            )
        return cls.parse(setting)

    def settings(self) -> dict[str, Any]:
        """What :meth:`parse` turns into the same config: names, retention, and what is not default."""
        if isinstance(self.method, Chain):
            tower, before = self.method.parts
            return {"tower": tower.settings(), "before": type(self)(before).settings()}
        plain: dict[str, Any] = {"method": self.method.name}
        for field in dataclasses.fields(self.method):
            value = getattr(self.method, field.name)
            usual = SERVING_DEFAULTS.get(field.name, field.default)
            if (field.name == "retention" and value is not None) or value != usual:
                plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    def hf_overrides(self, architecture: str, backend: bool = False) -> dict[str, Any]:
        """vLLM's ``hf_overrides`` that serve a model with this config; arguments as of :func:`engine_arguments`."""
        backend = backend or "tower" in self.method.stages  # vLLM's own towers have no hooks in front of their blocks
        return {"architectures": [serving_architecture(architecture, backend)], KEY: self.settings()}

    # what it means ----------------------------------------------------------------------------------------------

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """How many tokens of a video of T frames of (h, w) positions enter the LLM.

        Never below 1, however short the video and however small the retention, and never above T * h * w. Tokens that
        are no patches (LLaVA-OneVision's newline, Qwen3-VL's timestamps) come on top.
        """
        return min(max(1, self.method.token_count(frames, grid)), frames * grid[0] * grid[1])


def engine_arguments(config: ServingConfig, architecture: str, backend: bool = False) -> dict[str, Any]:
    """What ``vllm.LLM(model, **arguments)`` needs beside the model.

    Args:
        config: the method and its settings.
        architecture: a stock one.
        backend: serve on vLLM's Transformers backend also what has an own class.

    Raises:
        ValueError: for an architecture that is not supported.
    """
    return {"hf_overrides": config.hf_overrides(architecture, backend)}


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as they stand in a command: ``["--hf-overrides", '{"architectures": ...}', ...]``."""
    words = []
    for name, value in arguments.items():
        text = json.dumps(value) if isinstance(value, Mapping | list) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return words


def _fields(cls: type[Method]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _own_count(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether settings bring a count of their own, which the method then refuses beside ``exact=True``."""
    if "exact" in settings or not {"exact"} <= _fields(method_class(name)):
        return False
    return any(settings.get(key) is not None for key in OWN_COUNTS)


def _servable() -> str:
    """The methods that can be served, for error messages."""
    served = []
    for name in names():
        cls = method_class(name)
        exact = cls.exact_count or "exact" in _fields(cls)
        if "before" in cls.stages and exact and "question" not in cls.needs:
            served.append(name)
    return ", ".join(served)
