"""What a session remembers of the prompts it compressed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holitom.merge import Merge
from holitom.models.towers import TowerRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class InnerRecord:
    """What one inner stage did to one video: in front of ``layer``, ``merge`` maps the tokens that had come so far.

    Args:
        layer: the decoder layer.
        merge: a map of V tokens.
        attention: (V,) the last prompt token's attention to them, where the method asked for it.
        place: (V,) int64, the flat position t * N + n of each token's anchor in the video; -1: no patch (a newline).
    """

    layer: int
    merge: Merge
    attention: Tensor | None = field(default=None, repr=False)
    place: Tensor | None = field(default=None, repr=False)


@dataclass(eq=False)
class VideoRecord:
    """One video of the latest prompt.

    Args:
        row: its row in the batch.
        frames: T.
        grid: (h, w).
        merge: the map of the T*N patches to the tokens that entered the LLM.
        newlines: placeholder tokens that are no patches (they enter as they are).
        inner: the inner stages. Their sources are the video's tokens in sequence order, newlines included.
        scores: (T, N) patch scores, where the method asked for them.
        tower: what was done inside the vision tower, where that is known.
    """

    row: int
    frames: int
    grid: tuple[int, int]
    merge: Merge
    newlines: int = 0
    inner: list[InnerRecord] = field(default_factory=list)
    scores: Tensor | None = field(default=None, repr=False)
    tower: TowerRecord | None = field(default=None, repr=False)

    @property
    def tokens_by_stage(self) -> list[int]:
        """Visual tokens, newlines included: before compression, entering the LLM, after each inner stage."""
        entered = self.merge.outputs + self.newlines
        return [self.merge.inputs + self.newlines, entered, *(stage.merge.outputs for stage in self.inner)]

    @property
    def provenance(self) -> Merge | None:
        """From the patches of the vision tower, through their rows and the pooling, to the tokens entering the LLM.

        A map of the T * h * w patches of the tower's own grid, row by row and without class tokens; a patch may have a
        share in several tokens. None where the tower is not known.
        """
        if self.tower is None:
            return None
        rows, (patch, place, share) = self.tower.patches, self.tower.pooled(self.grid)
        frame = torch.arange(self.frames, device="cpu")[:, None]
        patches, places = rows.inputs // self.frames, self.grid[0] * self.grid[1]
        source, output = (frame * patches + patch).flatten(), (frame * places + place).flatten()
        most = (
            torch.zeros(places, patches, dtype=torch.float32, device="cpu").index_put_((place, patch), share).argmax(1)
        )
        anchor = rows.target[(frame * patches + most).flatten()]  # of each place the row that it holds most of
        mixed = Merge.from_edges(
            rows.target[source], output, share.repeat(self.frames), anchor, rows.outputs
        )  # repeated rows of one place are joined below
        return rows.compose(mixed.compose(self.merge.to("cpu")))

    def plot(self, frames: Any = None, **options: Any) -> Figure:
        """What became of the patches, as a matplotlib figure, drawn over ``frames`` (F, H, W, 3) where given.

        Options and errors: see :func:`holitom.report.figure.plot`.
        """
        from holitom.report.figure import plot  # only where a picture is asked for

        return plot(self, frames, **options)

    def _repr_html_(self) -> str:
        from holitom.report.reprs import video_html

        return video_html(self)


@dataclass(eq=False)
class PromptRecord:
    """One row of the latest prompt.

    Args:
        row: its index in the batch.
        tokens: real tokens of the full prompt (without padding).
        by_layer: real tokens that each decoder layer processed.
        videos: the row's videos, in order.
    """

    row: int
    tokens: int
    by_layer: list[int]
    videos: list[VideoRecord] = field(default_factory=list)

    @property
    def visual_by_layer(self) -> list[int]:
        """Visual tokens (newlines included) that each decoder layer processed."""

        def count(video: VideoRecord, layer: int) -> int:
            return video.tokens_by_stage[1 + sum(inner.layer <= layer for inner in video.inner)]

        return [sum(count(video, layer) for video in self.videos) for layer in range(len(self.by_layer))]

    @property
    def visual(self) -> int:
        """Visual tokens (newlines included) of the full prompt."""
        return sum(video.tokens_by_stage[0] for video in self.videos)
