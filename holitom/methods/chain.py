"""Methods one after the other, each in a later stage: inside the vision tower, before the LLM, inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holitom.merge import Merge
from holitom.methods.base import STAGES, Method, Positions, Stage
from holitom.tokens import SpanStates, TowerStates, VideoTokens


@dataclass(frozen=True)
class Chain(Method):
    """Two or three methods in one, written ``tower | before | inside``; any two of the three do.

    Each method is used from its own place up to that of the next one: ``visionzip | holitom`` takes of HoliTom the
    stage inside the LLM, ``renewal | holitom`` both of its stages.

    Args:
        before: the method before the LLM, or None.
        inside: the method inside the LLM, or None.
        tower: the method inside the vision tower, or None.

    Raises:
        TypeError: when a method has no stage in its place, or :meth:`of` would put it in an earlier place.
        ValueError: for fewer than two methods.
    """

    before: Method | None = None
    inside: Method | None = None
    tower: Method | None = None
    positions: Positions = field(default="compact", init=False)  # those of the method before the LLM
    mass: bool = field(default=False, init=False)  # of any of them

    def __post_init__(self) -> None:
        super().__post_init__()
        placed = {stage: part for stage in STAGES if (part := getattr(self, stage)) is not None}
        for stage, part in placed.items():
            if stage not in part.stages:
                raise TypeError(f"{part!r} has no stage {STAGES[stage]}, where this chain has it")
        if _places(tuple(placed.values())) != placed:
            raise TypeError(f"{self!r} leaves out an earlier stage of a method: build chains with |, or Chain.of")
        stages = tuple(stage for stage in STAGES if self.stage(stage))
        before, inside = self._at("before"), self._at("inside")
        for name, value in (
            ("name", "|".join(part.name for part in self.parts)),
            ("stages", stages),
            ("positions", before.positions),
            ("mass", any(part.mass for part in self.parts)),
            ("needs", before.needs),
            ("tower_needs", self._at("tower").tower_needs),
            ("exact_count", before.exact_count),
            ("attention", inside.attention),
            ("compacts", inside.compacts),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, *methods: Method) -> Chain:
        """The chain of methods from left to right; chains among them are taken apart.

        Raises:
            TypeError: when something is no method, or has no stage after that of the method to its left.
            ValueError: for fewer than two methods.
        """
        parts: list[Method] = []
        for method in methods:
            parts += method.parts if isinstance(method, Chain) else [method]
        return cls(**_places(tuple(parts)))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.parts))

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods from left to right."""
        return tuple(part for stage in STAGES if (part := getattr(self, stage)) is not None)

    def stage(self, stage: Stage) -> Method | None:
        """The part that does a stage: the last one that has it, of those in this place or an earlier one."""
        upto = list(STAGES)[: list(STAGES).index(stage) + 1]
        parts = [part for place in upto if (part := getattr(self, place)) is not None and stage in part.stages]
        return parts[-1] if parts else None

    def _at(self, stage: Stage) -> Method:
        return self.stage(stage) or Method()

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        """See :meth:`Method.tower_layers`."""
        return self._at("tower").tower_layers(depth)

    def merge_tower(self, states: TowerStates) -> Merge:
        """See :meth:`Method.merge_tower`."""
        return self._at("tower").merge_tower(states)

    def merge_video(self, video: VideoTokens) -> Merge:
        """See :meth:`Method.merge_video`."""
        return self._at("before").merge_video(video)

    def layers(self, depth: int) -> tuple[int, ...]:
        """See :meth:`Method.layers`."""
        return self._at("inside").layers(depth)

    def merge_span(self, span: SpanStates) -> Merge:
        """See :meth:`Method.merge_span`."""
        return self._at("inside").merge_span(span)

    def token_count(self, frames: int, grid: tuple[int, int]) -> int:
        """Of the method before the LLM: see :meth:`Method.token_count`."""
        return self._at("before").token_count(frames, grid)

    def with_token_count(self, count: int, frames: int, grid: tuple[int, int]) -> Chain:
        """This chain with another method before the LLM: see :meth:`Method.with_token_count`."""
        before = self._at("before")
        return self.replaced(before, before.with_token_count(count, frames, grid))

    def for_tower(self, tower: str) -> Chain:
        """Each part's own: see :meth:`Method.for_tower`."""
        return Chain.of(*(part.for_tower(tower) for part in self.parts))

    def with_positions(self, positions: Positions) -> Chain:
        """This chain with the positions of its method before the LLM: see :meth:`Method.with_positions`."""
        before = self.stage("before")
        if before is None:
            return self  # nothing leaves the prompt before the LLM
        return self.replaced(before, before.with_positions(positions))

    def replaced(self, part: Method, by: Method) -> Chain:
        """This chain with another method in place of one of its parts."""
        return Chain.of(*(by if old is part else old for old in self.parts))

    def settings(self) -> dict[str, Any]:
        """The settings of each part under the name of its stage, ready for JSON and for ``parse``."""
        return {stage: part.settings() for stage in STAGES if (part := getattr(self, stage)) is not None}


def _places(methods: tuple[Method, ...]) -> dict[Stage, Method]:
    """The stage in which each of some methods begins: its first one after that of the method to its left."""
    if len(methods) < 2:
        raise ValueError(f"a chain has two or three methods, got {len(methods)}: use a method by itself")
    places: dict[Stage, Method] = {}
    left = list(STAGES)
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"a chain is made of methods, got {method!r}")
        found = next((stage for stage in left if stage in method.stages), None)
        if found is None:
            before = f" after that of {[*places.values()][-1]!r} ({STAGES[[*places][-1]]})" if places else ""
            raise TypeError(
                f"{method!r} has no stage{before}: from left to right, a chain works at most once "
                + ", ".join(STAGES.values())
            )
        places[found] = method
        left = left[left.index(found) + 1 :]
    return places
