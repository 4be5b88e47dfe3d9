"""Large matrices of parameters: every value by default, every combination with `make slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def some(cases: Iterable[tuple], of: int, turn: int = 0) -> list:
    """Cases for ``parametrize``: one in ``of`` runs by default, along diagonals; the others are slow.

    Of three tests of one matrix with turns 0, 1 and 2 of 3, each combination is met by exactly one.
    """
    cases = list(cases)
    columns = [list(dict.fromkeys(column)) for column in zip(*cases, strict=True)]
    early = [case for case in cases if sum(map(list.index, columns, case)) % of == turn]
    missing = [set(column) - set(met) for column, met in zip(columns, zip(*early, strict=True), strict=True)]
    assert not any(missing), f"no case by default has {missing}"
    return [pytest.param(*case, marks=() if case in early else pytest.mark.slow) for case in cases]
