"""Questions with one-word answers about a sampled scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from holitom.video.synthetic.scene import COLOURS, DOWN, FRAMES, LEFT, MAX_COUNT, RIGHT, SHAPES, STILL, UP, Scenes

NUMBERS = ("one", "two", "three", "four", "five")
QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")
HEADINGS = {LEFT: "left", RIGHT: "right", UP: "up", DOWN: "down"}
_CENTRE_MARGIN = 5.0


@dataclass(frozen=True)
class Question:
    """One question: its ``task``, its ``text``, the one-word ``answer`` and all words that could answer it."""

    task: str
    text: str
    answer: str
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.answer not in self.choices:
            raise ValueError(f"answer {self.answer!r} is not among the choices {self.choices}")


def _name(scenes: Scenes, b: int, slot: int, rng: np.random.Generator) -> str:
    """Name an object by its shape or by its colour: both are unique in a clip."""
    if rng.random() < 0.5:
        return SHAPES[scenes.shape[b, slot]]
    return f"{COLOURS[scenes.colour[b, slot]]} shape"


def _quadrant(x: float, y: float) -> str | None:
    """Name the quadrant of a place, or None too near the centre lines to tell."""
    from_x, from_y = x - 55.5, y - 55.5
    if min(abs(from_x), abs(from_y)) < _CENTRE_MARGIN:
        return None
    return QUADRANTS[2 * int(from_y > 0) + int(from_x > 0)]


def _colour(scenes: Scenes, b: int, rng: np.random.Generator) -> Question:
    slot = int(rng.integers(scenes.count[b]))
    text = f"What colour is the {SHAPES[scenes.shape[b, slot]]}?"
    return Question("colour", text, COLOURS[scenes.colour[b, slot]], COLOURS)


def _shape(scenes: Scenes, b: int, rng: np.random.Generator) -> Question:
    slot = int(rng.integers(scenes.count[b]))
    text = f"Which shape is {COLOURS[scenes.colour[b, slot]]}?"
    return Question("shape", text, SHAPES[scenes.shape[b, slot]], SHAPES)


def _count(scenes: Scenes, b: int, rng: np.random.Generator) -> Question:
    return Question("count", "How many shapes are there at the end?", NUMBERS[scenes.count[b] - 1], NUMBERS)


def _order(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    appears = scenes.appears[b, : scenes.count[b]]
    early, late = np.nonzero(appears[:, None] + 2 <= appears[None])
    if not len(early):
        return None
    pick = int(rng.integers(len(early)))
    names = SHAPES if rng.random() < 0.5 else COLOURS
    kinds = scenes.shape[b] if names is SHAPES else scenes.colour[b]
    pair = [names[kinds[early[pick]]], names[kinds[late[pick]]]]
    first, second = pair if rng.random() < 0.5 else pair[::-1]
    return Question("order", f"Which appeared first, {first} or {second}?", pair[0], (first, second))


def _flash_shape(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    if not scenes.flashes[b]:
        return None
    return Question("flash_shape", "Which shape flashed?", SHAPES[scenes.shape[b, MAX_COUNT]], SHAPES)


def _flash_place(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    if not scenes.flashes[b]:
        return None
    place = _quadrant(*scenes.centre[b, MAX_COUNT, scenes.appears[b, MAX_COUNT]])
    return Question("flash_place", "Where did a shape flash?", place, QUADRANTS) if place else None


def _place(task: str, text: str, scenes: Scenes, b: int, rng: np.random.Generator, at_end: bool) -> Question | None:
    count, movers = int(scenes.count[b]), _movers(scenes, b)
    # Half of the questions go to moving objects: on still ones start and end are the same place.
    use_movers = rng.random() < 0.5
    slot = int(rng.choice(movers)) if len(movers) and use_movers else int(rng.integers(count))
    frame = FRAMES - 1 if at_end else int(scenes.appears[b, slot])
    place = _quadrant(*scenes.centre[b, slot, frame])
    return Question(task, text.format(_name(scenes, b, slot, rng)), place, QUADRANTS) if place else None


def _movers(scenes: Scenes, b: int) -> NDArray[np.int64]:
    """The slots of the lasting objects that move."""
    return np.nonzero(scenes.heading[b, : scenes.count[b]] != STILL)[0]


def _direction(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    movers = _movers(scenes, b)
    if not len(movers):
        return None
    slot = int(rng.choice(movers))
    text = f"Which way does the {_name(scenes, b, slot, rng)} move?"
    return Question("direction", text, HEADINGS[int(scenes.heading[b, slot])], tuple(HEADINGS.values()))


def _side(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    movers = _movers(scenes, b)
    if not len(movers):
        return None
    slot = int(rng.choice(movers))
    heading = int(scenes.heading[b, slot])
    words = ("left", "right") if heading in (LEFT, RIGHT) else ("above", "below")
    name = _name(scenes, b, slot, rng)
    text = f"Did the {name} end {words[0]} or {words[1]} of its start?"
    return Question("side", text, words[int(heading in (RIGHT, DOWN))], words)


def _mover(scenes: Scenes, b: int, rng: np.random.Generator) -> Question | None:
    movers = _movers(scenes, b)
    if len(movers) != 1 or scenes.count[b] < 2:
        return None
    return Question("mover", "What colour is the moving shape?", COLOURS[scenes.colour[b, movers[0]]], COLOURS)


def _scenes(scenes: Scenes, b: int, rng: np.random.Generator) -> Question:
    return Question("scenes", "How many scenes are there?", NUMBERS[scenes.scene[b, -1]], NUMBERS[:3])


ASKERS: dict[str, Callable[[Scenes, int, np.random.Generator], Question | None]] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "order": _order,
    "flash_shape": _flash_shape,
    "flash_place": _flash_place,
    "end_place": partial(_place, "end_place", "Where is the {} at the end?", at_end=True),
    "start_place": partial(_place, "start_place", "Where did the {} first appear?", at_end=False),
    "direction": _direction,
    "side": _side,
    "mover": _mover,
    "scenes": _scenes,
}


def ask(scenes: Scenes, b: int, rng: np.random.Generator) -> list[Question]:
    """Ask every question that scene ``b`` can answer without ambiguity, at most one for each task."""
    asked = (asker(scenes, b, rng) for asker in ASKERS.values())
    return [question for question in asked if question is not None]
