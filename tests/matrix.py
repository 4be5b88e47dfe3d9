"""Large matrices of parameters: every value by default, every combination with `make slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def some(cases: Iterable[tuple], of: int, turn: int = 0) -> list:
    """Cases for ``parametrize``: one in ``of`` runs by default, along diagonals; the others are slow.

    Of several tests of one matrix, each with a turn of its own, no two meet the same combination.
    """
    cases = list(cases)
    columns = [list(dict.fromkeys(column)) for column in zip(*cases, strict=True)]
    early = [case for case in cases if sum(map(list.index, columns, case)) % of == turn]
    missing = [set(column) - set(met) for column, met in zip(columns, zip(*early, strict=True), strict=True)]
    assert not any(missing), f"no case by default has {missing}"
    return [pytest.param(*case, marks=() if case in early else pytest.mark.slow) for case in cases]
