"""Large matrices of parameters: every value by default, every combination with `make slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def some(cases: Iterable[tuple], of: int, turn: int = 0) -> list:
    """Cases for ``parametrize``: one in ``of`` runs by default, along diagonals; the others are slow.

    Of several tests of one matrix, each with a turn of its own, no two meet the same combination; but a value that no
    diagonal meets, because it has few combinations, brings its first one.
    """
    cases = list(cases)
    columns = [list(dict.fromkeys(column)) for column in zip(*cases, strict=True)]
    places = [tuple(map(list.index, columns, case)) for case in cases]
    early = {number for number, place in enumerate(places) if sum(place) % of == turn}
    for column, values in enumerate(columns):
        for value in set(range(len(values))) - {places[number][column] for number in early}:
            early.add(next(number for number, place in enumerate(places) if place[column] == value))
    return [pytest.param(*case, marks=() if number in early else pytest.mark.slow) for number, case in enumerate(cases)]
