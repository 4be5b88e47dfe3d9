"""The examples of docs/cost.md print what the page says."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "cost.md"


def test_the_pages_examples_run_as_printed():
    result = doctest.testfile(str(PAGE), module_relative=False, verbose=False)
    assert result.attempted > 10
    assert result.failed == 0
