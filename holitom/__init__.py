"""holitom: training-free visual token compression for video language models."""

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.methods.holitom import HoliTom
from holitom.tokens import SpanStates, VideoTokens, exact_count

__version__ = "0.1.0"

__all__ = ["HoliTom", "Merge", "Method", "SpanStates", "VideoTokens", "exact_count"]
