"""The one way in which methods that rank by patch scores take from attention sinks (SToP)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from holitom.methods.base import Method
from holitom.ops.sinks import sink_scores
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class SinkAware(Method):
    """A method before the LLM that ranks tokens by the vision tower's patch scores.

    Some positions receive much attention in every frame, whatever they show. SToP (arXiv 2604.20937) gives each
    position a sink score s in 0..1 and takes from it: in ranks by patch scores, in HoliTom's test of what is static
    (sinks pass it more easily) and in density peaks (sinks are centres less easily). The published constants count in
    one tower's attention; here a full sink loses so many times the video's mean score.

    Args:
        sink: strength; 0: off, 1: as published for this method.

    Attributes:
        sink_loss: what a full sink loses at strength 1, in mean patch scores.
        sink_static: what is added there to a cosine over time.
        sink_peaks: what is taken there from a density-peak score.

    Raises:
        ValueError: when the strength is negative.
    """

    sink_loss: ClassVar[float] = 15.0
    sink_static: ClassVar[float] = 0.07
    sink_peaks: ClassVar[float] = 0.3

    sink: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sink >= 0:
            raise ValueError(f"sink is a strength, 0 (off) or more (1: as published), got {self.sink!r}")

    def ranked(self, video: VideoTokens) -> tuple[Tensor, Tensor | None]:
        """The patch scores by which to rank, and the sink scores times ``sink``.

        Returns:
            (T, N) float32; (N,) float32, or None without a strength.

        Raises:
            ValueError: when the video has no patch scores.
        """
        scores = video.require_scores(type(self).__name__)
        if not self.sink:
            return scores, None
        sinks = self.sink * sink_scores(scores)
        mean = scores.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().mean()
        return scores - self.sink_loss * mean * sinks, sinks
