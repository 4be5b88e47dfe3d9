"""What a method is: a frozen dataclass that says who merges with whom, before the LLM, inside it, or both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from holitom.merge import Merge
from holitom.ops.streaming import SegmentStream
from holitom.tokens import SpanStates, VideoTokens

if TYPE_CHECKING:
    from holitom.runtime import Session

Need = Literal["scores", "keys", "frame_embeddings"]
Attention = Literal["none", "last", "coming", "text"]


@dataclass(frozen=True)
class Method:
    """The base of all methods. A method overrides one stage, or both.

    * Before the LLM: :meth:`merge_video` (and ``outer = True``).
    * Inside it: :meth:`merge_inner` or, with more context, :meth:`merge_span`, and :meth:`layers`.

    A method is a value: it holds its settings and nothing else, and can serve any number of models and threads.

    Class attributes:
        name: what the command line calls it.
        paper: the paper's address.
        outer: whether there is a stage before the LLM.
        needs: what of :class:`~holitom.VideoTokens` beyond the features :meth:`merge_video` reads.
        attention: which attention the inner stage reads: ``"last"``: the last prompt token's, in the layer before;
            ``"coming"``: the same token's, in the layer that follows; ``"text"``: the largest over all heads and all
            text tokens after the video, in the layer before; ``"none"``.
        exact_count: whether the number of tokens out is a function of (T, h, w, retention) with default settings.
        compacts: whether positions are renumbered after an inner stage (else the survivors keep theirs).
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    outer: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()
    attention: ClassVar[Attention] = "none"
    exact_count: ClassVar[bool] = False
    compacts: ClassVar[bool] = False

    def merge_video(self, video: VideoTokens) -> Merge:
        """The map from the T*N tokens of a video (frame by frame, row by row) to those that enter the LLM."""
        return Merge.identity(video.frames * video.positions, video.features.device)

    def layers(self, depth: int) -> tuple[int, ...]:
        """The decoder layers (0-based, ascending) in front of which the inner stage acts, of ``depth``."""
        return ()

    def merge_inner(self, hidden: Tensor, attention: Tensor) -> Merge:
        """The inner stage for one video's visual span: hidden states (L, D), attention (L,) -> a map of L tokens."""
        raise TypeError(f"{type(self).__name__} has no stage inside the LLM")

    def merge_span(self, span: SpanStates) -> Merge:
        """The inner stage with all that is known about the span; by default :meth:`merge_inner` of its tensors."""
        if span.attention is None:
            raise TypeError(f"{type(self).__name__}.attention must name the attention that merge_inner reads")
        return self.merge_inner(span.hidden, span.attention)

    def retained(self, frames: int, grid: tuple[int, int]) -> int:
        """How many tokens enter the LLM for T frames of (h, w) positions, where that does not depend on content.

        Raises:
            ValueError: when the number depends on the video's content.
        """
        raise ValueError(
            f"the token count of {self!r} depends on the video's content: use exact=True where the method offers it"
        )

    def sized(self, count: int, frames: int, grid: tuple[int, int]) -> Method:
        """This method, set so that it keeps exactly ``count`` tokens of a video of T frames of (h, w) positions.

        Raises:
            ValueError: when the method has no exact token count, or there are not so many tokens.
        """
        total = frames * grid[0] * grid[1]
        if not 1 <= count <= total:
            raise ValueError(f"a video of {frames} frames of {grid} has 1..{total} tokens to keep, not {count}")
        names = {field.name for field in dataclasses.fields(self)}
        if "retention" in names and ("exact" in names or self.exact_count):
            changes = {"retention": count / total, **({"exact": True} if "exact" in names else {})}
            sized = dataclasses.replace(self, **changes)
            if sized.retained(frames, grid) == count:
                return sized
        raise ValueError(
            f"{self.name} cannot keep a given number of tokens: give a share of them instead, or use a method with "
            "exact=True (see `holitom methods`)"
        )

    def part(self, count: int, frames: int, grid: tuple[int, int]) -> Method:
        """:meth:`sized` for a part of the video that this method was set for; all else stays as it is for the whole.

        Args:
            count: tokens to keep of the part. frames: T of the part. grid: (h, w).
        """
        return self.sized(count, frames, grid)

    def links(self, features: Tensor) -> Tensor | None:
        """(T-1, N) bool: which positions of (T, N, D) features stay the same; None for a method that does not ask."""
        return None

    def stream(self, window: int) -> SegmentStream | None:
        """Where a long video may be cut into windows of at most so many frames, by :meth:`links`; None: anywhere."""
        return None

    def __call__(self, model: Any, **options: Any) -> Session:
        """``with method(model) as session:`` compresses inside the block and restores the model after it.

        Args:
            model: a transformers video LLM. options: see :class:`holitom.runtime.Session` (``positions``, ``timer``).
        """
        from holitom.runtime import Session  # the one upward import: a method stays free of models until it meets one

        return Session(self, model, **options)

    def attach(self, model: Any, **options: Any) -> Session:
        """Compresses from now on, until ``.remove()`` is called on what this returns. For servers."""
        return self(model, **options).attach()

    def __or__(self, inner: Method) -> Method:
        """``outer | inner``: this method before the LLM, the other's inner stage inside it."""
        from holitom.methods.chain import Chain

        return Chain(self, inner)

    def settings(self) -> dict[str, object]:
        """The method's parameters as a dict, ready for JSON."""
        return dataclasses.asdict(self)


def check_layer(name: str, value: float | int | None) -> None:
    """Raises unless ``value`` is None, a layer index >= 1 or a share of the depth in (0, 1)."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a layer index, a share of the depth, or None; got {value!r}")
    if (isinstance(value, int) and value < 1) or (isinstance(value, float) and not 0 < value < 1):
        raise ValueError(
            f"{name}={value!r} is no inner layer: give an index from 1 (layer 0 has no attention before it), "
            "a share of the depth between 0.0 and 1.0, or None to leave the inner stage out"
        )


def resolve_layer(name: str, value: float | int, depth: int) -> int:
    """A layer index for a model of ``depth`` layers: an int is one already, a float is a share of the depth, rounded.

    Raises:
        ValueError: when the model has no such layer.
    """
    layer = value if isinstance(value, int) else max(1, round(value * depth))
    if not 1 <= layer < depth:
        raise ValueError(f"{name}={value!r} means decoder layer {layer}; this model can merge at 1..{depth - 1}")
    return layer
