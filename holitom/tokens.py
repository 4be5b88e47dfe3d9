"""What a method gets to see: the visual tokens of one video, before the LLM or in the middle of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import SupportsIndex

import torch
from torch import Tensor

from holitom.merge import Merge


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """The visual tokens of one video as they would enter the LLM: T frames of N = h * w positions, row by row.

    Args:
        features: (T, N, D) floating point, projected and pooled features. Where they (or scores) are NaN or infinite,
            maps are valid all the same; a token ranks last where it is ranked by its own values, and may be merged.
        grid: (h, w), the rows and columns of a frame.
        scores: (T, N) importance of each position as the vision tower sees it (HoliTom: attention received, mean over
            heads and queries of the last used layer), or None where no method asks for it.
        keys: (T, N, K) attention keys of the same layer, mean over heads, or None. VisionZip compares these.
        frame_embeddings: (T, E) one vector per frame, or None. FastVID cuts scenes with these.
        tower: the map of the video's T*P patches to the rows of the vision tower's last block, where a stage inside it
            merged any.
        question: (L, D) the language model's embeddings of the user's text, without the tokens of a chat template, or
            None. CDPruner and EchoPrune compare features with these.

    Raises:
        TypeError: naming the argument whose type or dtype does not fit.
        ValueError: naming the argument whose shape does not fit.
    """

    features: Tensor
    grid: tuple[int, int]
    scores: Tensor | None = None
    keys: Tensor | None = None
    frame_embeddings: Tensor | None = None
    tower: Merge | None = None
    question: Tensor | None = None

    def __post_init__(self) -> None:
        features, grid = self.features, tuple(self.grid)
        if not isinstance(features, Tensor) or not features.is_floating_point():
            kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise TypeError(f"VideoTokens.features must be a floating point tensor (T, N, D), got {kind}")
        if features.dim() != 3 or 0 in features.shape:
            raise ValueError(
                "VideoTokens.features must have shape (T, N, D): frames, positions of a frame, channels, each at least "
                f"1; got {tuple(features.shape)}"
            )
        if len(grid) != 2 or not all(isinstance(size, SupportsIndex) and size > 0 for size in grid):
            raise ValueError(f"VideoTokens.grid must be (rows, columns), two integers of at least 1, got {self.grid!r}")
        object.__setattr__(self, "grid", (int(grid[0]), int(grid[1])))
        if grid[0] * grid[1] != features.shape[1]:
            raise ValueError(
                f"VideoTokens.grid {self.grid} has {grid[0] * grid[1]} positions, but features {tuple(features.shape)} "
                f"have N = {features.shape[1]} a frame: give the (rows, columns) of the pooled frame"
            )
        for name, known, dims in (("scores", 2, 2), ("keys", 2, 3), ("frame_embeddings", 1, 2), ("question", 0, 2)):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Tensor) or value.is_complex():
                raise TypeError(f"VideoTokens.{name} must be a tensor of real numbers, got {type(value).__name__}")
            if name == "question" and (value.dim() != 2 or not len(value) or value.shape[1] != features.shape[2]):
                raise ValueError(
                    f"VideoTokens.question must have shape (L, D = {features.shape[2]}) with at least one token, got "
                    f"{tuple(value.shape)}"
                )
            if value.dim() != dims or value.shape[:known] != features.shape[:known]:
                raise ValueError(
                    f"VideoTokens.{name} must start with {'(T, N)' if known == 2 else '(T,)'} = "
                    f"{tuple(features.shape[:known])} and have {dims} dimensions, got {tuple(value.shape)}"
                )
            if value.device != features.device:
                raise ValueError(
                    f"VideoTokens keeps its tensors on one device, got features on {features.device} and {name} on "
                    f"{value.device}"
                )

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return int(self.features.shape[0])

    @property
    def positions(self) -> int:
        """N, the number of positions of a frame."""
        return int(self.features.shape[1])

    def require_scores(self, method: str) -> Tensor:
        """(T, N) scores as float32, or an error that says who needs them.

        Raises:
            ValueError: when there are no scores.
        """
        if self.scores is None:
            raise ValueError(
                f"{method} ranks positions by the vision tower's patch scores, but this video has none: pass "
                "VideoTokens(..., scores=(T, N)), or use a method that needs none (see `holitom methods`)"
            )
        return self.scores.float()

    def require_question(self, method: str) -> Tensor:
        """(L, D) the question's embeddings as float32, or an error that says who needs them.

        Raises:
            ValueError: when there are none.
        """
        if self.question is None:
            raise ValueError(
                f"{method} looks at the question, but this video came without one: pass VideoTokens(..., "
                "question=(L, D)), or use a method that needs none (see `holitom methods`)"
            )
        return self.question.float()


@dataclass(frozen=True, eq=False)
class SpanStates:
    """The visual span of one video in the middle of the LLM, in front of one decoder layer.

    Args:
        hidden: (V, D) hidden states of the span's tokens, in sequence order.
        attention: (V,) float32, how strongly the last prompt token attends to each (mean over heads), or None for a
            method that does not ask for it.
        layer: the decoder layer in front of which this is (0-based).
        depth: the number of decoder layers.
        place: (V,) int64, the flat position t * N + n of each token's anchor in the video; -1 for a token without one
            (a newline).
        frames: T, the frames of the video.
        grid: (h, w), the rows and columns of a frame.
        entered: the number of this span's tokens that entered the LLM.
        memory: a dict of the method's own, one for each video and prefill, empty in front of the first layer.
        text: (L, D) hidden states of the text tokens behind the row's last video, for a method whose ``attention`` is
            ``"text"``, or None.
    """

    hidden: Tensor
    attention: Tensor | None
    layer: int
    depth: int
    place: Tensor
    frames: int
    grid: tuple[int, int]
    entered: int
    memory: dict[str, object] = field(default_factory=dict)
    text: Tensor | None = None

    def require_attention(self, method: str) -> Tensor:
        """(V,) the attention as float32, or an error that says who reads it.

        Raises:
            TypeError: when there is none.
            ValueError: when its shape is not that of the states.
        """
        if self.attention is None:
            raise TypeError(f"{method} reads the attention that these tokens receive, but SpanStates.attention is None")
        if self.hidden.dim() != 2 or self.attention.shape != self.hidden.shape[:1]:
            raise ValueError(
                "SpanStates.hidden must have shape (V, D) and attention (V,), got "
                f"{tuple(self.hidden.shape)} and {tuple(self.attention.shape)}"
            )
        return self.attention.float()


@dataclass(frozen=True, eq=False)
class TowerStates:
    """The patches of one video in the middle of a vision tower, in front of one block.

    Args:
        hidden: (T, P, D) states of T frames of P patches; of merged ones, that of their row.
        layer: the block in front of which this is (0-based).
        depth: the number of blocks.
        grid: (rows, columns) of patches of a frame; P = leading + rows * columns.
        leading: how many class tokens stand in front of a frame's patches.
        order: (P,) int64, the place in the frame (row by row, class tokens first) of the patch of each state, for
            towers that work in window order; None: states are in the order of their places.
        merged: the map of the T*P patches that is in force so far, or None. The new one takes its place.
        keys: (T, P, K) float32, attention keys of the block before, mean over heads, where the method asks for them
            and that block has attention.
    """

    hidden: Tensor
    layer: int
    depth: int
    grid: tuple[int, int]
    leading: int = 0
    order: Tensor | None = None
    merged: Merge | None = None
    keys: Tensor | None = None

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.hidden.dim() != 3 or self.hidden.shape[1] != self.leading + rows * columns:
            raise ValueError(
                f"TowerStates.hidden must have shape (T, P, D) with P = {self.leading} + {rows} * {columns} patches, "
                f"got {tuple(self.hidden.shape)}"
            )
        if self.order is not None and self.order.shape != self.hidden.shape[1:2]:
            raise ValueError(
                f"TowerStates.order must have shape (P = {self.hidden.shape[1]},), got {tuple(self.order.shape)}"
            )


def exact_count(frames: int, grid: tuple[int, int], retention: float) -> int:
    """The number of tokens that ``exact=True`` keeps of a video: round(T * h * w * retention), at least 1.

    A pure function of its arguments, so that a server can reserve places before it sees the features. Rounds half to
    even, in float64.

    Raises:
        ValueError: when a size is not positive or the retention is outside (0, 1].
    """
    if frames < 1 or grid[0] < 1 or grid[1] < 1:
        raise ValueError(f"a video has at least one frame, row and column; got {frames} frames of {grid}")
    check_share("retention", retention)
    return max(1, round(frames * grid[0] * grid[1] * retention))


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` is a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} is the share of tokens that stay and must lie in (0, 1], got {value!r}")


def largest_remainder(sizes: Tensor, total: int) -> Tensor:
    """Splits ``total`` over parts in proportion to their sizes, exactly and never beyond a part's size.

    Args:
        sizes: (P,) int64 on the CPU, the largest share of each part.
        total: what is split, at most the sum of the sizes.

    Returns:
        (P,) int64 with sum ``total``: floors first, then one each to the largest fractions (ties: the first).
    """
    if not 0 <= total <= int(sizes.sum()):
        raise ValueError(f"cannot split {total} tokens over parts that hold {int(sizes.sum())}")
    ideal = sizes.double() * (total / max(1, int(sizes.sum())))
    share = ideal.floor().long().minimum(sizes)
    fraction = torch.where(share < sizes, ideal - share, -1.0)
    share[fraction.argsort(descending=True, stable=True)[: total - int(share.sum())]] += 1
    return share
