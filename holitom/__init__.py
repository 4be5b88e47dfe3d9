"""holitom: training-free visual token compression for video language models."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holitom.merge import Merge
    from holitom.methods import *
    from holitom.pipeline import Answer, Pipeline
    from holitom.runtime import Session, question_ids
    from holitom.tokens import SpanStates, TowerStates, VideoTokens, exact_count
    from holitom.video import Clip, read_video

__version__ = "0.2.0"

__all__ = [
    "Answer", "AveragePool", "CDPruner", "CellMean", "CellSample", "Chain", "Clip", "DivPrune", "DyCoke", "EVS",
    "EarlyTom", "EchoPrune", "FastV", "FastVID", "FlashVID", "ForestPrune", "FrameFusion", "HoliTom", "Merge",
    "Method", "Pipeline", "PruneVid", "PyramidDrop", "RandomDrop", "RandomInner", "Renewal", "RepeatFrames", "STTM",
    "Session", "SpanStates", "Spread", "ToMe", "TowerStates", "Uncompressed", "UnifiedST", "UniformFrames", "VCast",
    "VidCom2", "VideoTokens", "VisionZip", "exact_count", "parse", "question_ids", "read_video", "spell",
]  # fmt: skip

# Imported when they are first asked for: torch takes a second, and a command must be able to set its environment first.
_HOMES = dict.fromkeys(__all__, "methods") | {
    **dict.fromkeys(("Answer", "Pipeline"), "pipeline"),
    **dict.fromkeys(("Clip", "read_video"), "video"),
    **dict.fromkeys(("SpanStates", "TowerStates", "VideoTokens", "exact_count"), "tokens"),
    "Merge": "merge",
    **dict.fromkeys(("Session", "question_ids"), "runtime"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
