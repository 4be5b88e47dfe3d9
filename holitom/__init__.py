"""holitom: training-free visual token compression for video language models."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holitom.merge import Merge
    from holitom.methods.base import Method
    from holitom.methods.holitom import HoliTom
    from holitom.tokens import SpanStates, TowerStates, VideoTokens, exact_count

__version__ = "0.1.0"

__all__ = ["HoliTom", "Merge", "Method", "SpanStates", "TowerStates", "VideoTokens", "exact_count"]

# Imported when they are first asked for: torch takes a second, and a command must be able to set its environment first.
_HOMES = {
    "HoliTom": "holitom.methods.holitom",
    "Merge": "holitom.merge",
    "Method": "holitom.methods.base",
    "SpanStates": "holitom.tokens",
    "TowerStates": "holitom.tokens",
    "VideoTokens": "holitom.tokens",
    "exact_count": "holitom.tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
