"""What a method is: a frozen dataclass that says who merges with whom, before the LLM, inside it, or both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from holitom.merge import Merge
from holitom.methods.settings import normalise
from holitom.ops.precision import chooses_as_given
from holitom.tokens import SpanStates, TowerStates, VideoTokens, check_share

if TYPE_CHECKING:
    from holitom.runtime import Session

Need = Literal["scores", "keys", "frame_embeddings", "question"]
Attention = Literal["none", "last", "coming", "text"]
Stage = Literal["tower", "before", "inside"]
Positions = Literal["compact", "original"]


STAGES: dict[Stage, str] = {
    "tower": "inside the vision tower",
    "before": "before the LLM",
    "inside": "inside the LLM",
}  # in the order in which a video passes them


@dataclass(frozen=True)
class Method:
    """The base of all methods. A method overrides what its stages need.

    * Inside the vision tower: :meth:`merge_tower` and :meth:`tower_layers`.
    * Before the LLM: :meth:`merge_video`.
    * Inside the LLM: :meth:`merge_span` and :meth:`layers`.

    A method is a value: it holds its settings and nothing else, and can serve any number of models and threads.
    A setting of the wrong type raises a TypeError, one out of its range a ValueError, which name it.

    Args:
        positions: 1-D rotary positions of the tokens that enter the LLM: ``"compact"`` counts on without gaps, as if
            the others had never been there; ``"original"`` keeps the place of each output's anchor in the full prompt,
            and with it the time between tokens. Models with multi-axis positions (mrope) keep the places in any case.
            A method whose default differs overrides this field.
        mass: whether a merged token counts as often in attention inside the LLM as the tokens that it stands for: the
            log of their number is added to its attention logits (proportional attention, ToMe). Needs ``sdpa`` or
            ``eager`` attention, with a mask of floating point numbers, for which SDPA has no flash kernel; models of
            which every decoder layer sees all tokens; and a dynamic cache. Elsewhere it is refused.

    Attributes:
        name: what the command line calls it.
        paper: the paper's address.
        venue: where it was published, and the year.
        looks_at: what it chooses by, in a few words; "" for baselines that choose by place alone.
        stages: where it works, of ``"tower"``, ``"before"`` and ``"inside"``; found from what it overrides.
        needs: what of :class:`~holitom.VideoTokens` beyond the features :meth:`merge_video` reads.
        tower_needs: what of :class:`~holitom.TowerStates` beyond the states :meth:`merge_tower` reads: ``"keys"``.
        attention: which attention :meth:`merge_span` reads: ``"last"``: the last prompt token's, in the layer before;
            ``"coming"``: the same token's, in the layer that follows; ``"text"``: the largest over all heads and all
            text tokens after the video, in the layer before; ``"none"``.
        exact_count: whether the number of tokens out is a function of (T, h, w, retention) with default settings.
        compacts: whether positions are renumbered after an inner stage (else the survivors keep theirs).
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    venue: ClassVar[str] = ""
    looks_at: ClassVar[str] = ""
    stages: ClassVar[tuple[Stage, ...]] = ()
    needs: ClassVar[frozenset[Need]] = frozenset()
    tower_needs: ClassVar[frozenset[Need]] = frozenset()
    attention: ClassVar[Attention] = "none"
    exact_count: ClassVar[bool] = False
    compacts: ClassVar[bool] = False

    positions: Positions = field(default="compact", kw_only=True)
    mass: bool = field(default=False, kw_only=True)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign]  # in the class's own dict, else dataclass writes one
        entries: dict[Stage, Any] = {
            "tower": Method.merge_tower,
            "before": Method.merge_video,
            "inside": Method.merge_span,
        }
        cls.stages = tuple(stage for stage, entry in entries.items() if getattr(cls, entry.__name__) is not entry)
        for name in (entries[stage].__name__ for stage in cls.stages):
            home = next(base for base in cls.__mro__ if name in vars(base))
            if home is cls or not issubclass(home, Method):  # other methods' own are wrapped already
                setattr(cls, name, chooses_as_given(vars(home)[name]))

    def __post_init__(self) -> None:
        """Checks the settings' types, and a stage inside the LLM. A method that checks more calls it first."""
        normalise(self)
        if "inside" in self.stages:
            check_layer("layer", getattr(self, "layer", None))
            check_share("inner_retention", getattr(self, "inner_retention", 1.0))
        if self.mass and self.stages and set(self.stages) <= {"tower"}:
            raise ValueError(f"mass=True is for attention inside the LLM; {self.name} works {STAGES['tower']} alone")

    def __repr__(self) -> str:
        """The class and the settings that are not its defaults."""
        given = [(field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)]
        return f"{type(self).__name__}({', '.join(f'{name}={own!r}' for name, own, usual in given if own != usual)})"

    def stage(self, stage: Stage) -> Method | None:
        """The method that does a stage: this one, or none; of a chain, its part."""
        return self if stage in self.stages else None

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """The blocks (0-based, ascending) of a vision tower of ``depth`` in front of which patches merge."""
        return ()

    def merge_tower(self, states: TowerStates) -> Merge:
        """The map from the T*P patches of a video to the rows on which the rest of the tower runs. It drops none."""
        raise TypeError(f"{type(self).__name__} has no stage {STAGES['tower']}")

    def merge_video(self, video: VideoTokens) -> Merge:
        """The map from the T*N tokens of a video (frame by frame, row by row) to those that enter the LLM."""
        return Merge.identity(video.frames * video.positions, video.features.device)

    def layers(self, depth: int) -> tuple[int, ...]:
        """The decoder layers (0-based, ascending) in front of which the inner stage acts, of ``depth``.

        That of the setting ``layer``, an index or a share of the depth; none where it is None or there is no stage.
        """
        layer = getattr(self, "layer", None) if "inside" in self.stages else None
        return () if layer is None else (resolve_layer("layer", layer, depth),)

    def merge_span(self, span: SpanStates) -> Merge:
        """The map from the V visual tokens of a video in the middle of the LLM to those that stay."""
        raise TypeError(f"{type(self).__name__} has no stage {STAGES['inside']}")

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """How many tokens enter the LLM for T frames of (h, w) positions, where that does not depend on content.

        Raises:
            ValueError: when the number depends on the video's content.
        """
        if "before" not in self.stages:
            return frames * grid[0] * grid[1]
        raise ValueError(
            f"the token count of {self!r} depends on the video's content: use exact=True where the method offers it"
        )

    def with_token_count(self, count: int, frames: int, grid: tuple[int, int]) -> Method:
        """This method, set so that it keeps exactly ``count`` tokens of a video of T frames of (h, w) positions.

        Raises:
            ValueError: when the method has no exact token count, or there are not so many tokens.
        """
        total = frames * grid[0] * grid[1]
        if not 1 <= count <= total:
            raise ValueError(f"a video of {frames} frames of {grid} has 1..{total} tokens to keep, not {count}")
        names = {field.name for field in dataclasses.fields(self)}
        if "retention" in names and ("exact" in names or self.exact_count):
            changes: dict[str, Any] = {"retention": count / total, **({"exact": True} if "exact" in names else {})}
            found = dataclasses.replace(self, **changes)
            if found.token_count(frames, grid) == count:
                return found
        raise ValueError(
            f"{self.name} cannot keep a given number of tokens: give a share of them instead, or use a method with "
            "exact=True (see `holitom methods`)"
        )

    def for_tower(self, tower: str) -> Method:
        """This method with what it leaves open settled for a vision tower. A session asks for it.

        Args:
            tower: family and kind, see :func:`holitom.models.tower_name`.
        """
        return self

    def with_positions(self, positions: Positions) -> Method:
        """This method with other positions of what enters the LLM, see the class."""
        return dataclasses.replace(self, positions=positions)

    def __call__(self, model: Any, **options: Any) -> Session:
        """``with method(model) as session:`` compresses inside the block and restores the model after it.

        Args:
            model: a transformers video LLM.
            options: see :class:`holitom.runtime.Session` (``positions``, ``timer``, ``question``).
        """
        from holitom.runtime import Session  # the one upward import: a method stays free of models until it meets one

        return Session(self, model, **options)

    def attach(self, model: Any, **options: Any) -> Session:
        """Compresses from now on, until ``.remove()`` is called on what this returns. For servers."""
        return self(model, **options).attach()

    def __or__(self, other: Method) -> Method:
        """``tower | before | inside``: this method, then the other one in a later stage, see :class:`Chain`."""
        from holitom.methods.chain import Chain

        return Chain.of(self, other)

    def settings(self) -> dict[str, Any]:
        """The method's name and parameters, ready for JSON; :func:`~holitom.methods.parse` reads them back."""
        return {"method": self.name, **dataclasses.asdict(self)}


def check_layer(name: str, value: float | int | None) -> None:
    """Raises unless ``value`` is None, a layer index >= 1 or a share of the depth in (0, 1)."""
    if value is None:
        return
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
