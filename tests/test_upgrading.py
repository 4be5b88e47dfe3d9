"""docs/upgrading.md: each new name is there, each old one is gone, and options go by the new name alone."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from test_docs_commands import parse

import holitom
from holitom.corpus import Plan
from holitom.cost import CostReport, activation_peak_bytes, matched_to
from holitom.demo.app import launch
from holitom.ops import neighbour_cosine
from holitom.report.trace import trace

PAGE = Path(__file__).parents[1] / "docs" / "upgrading.md"
TEXT = PAGE.read_text("utf-8")
NAMES = re.findall(r"^\| `(holitom\.[\w.]+)`[^|]* \| (?:`(holitom\.[\w.]+)`|none)", TEXT, re.MULTILINE)
OPTIONS = re.findall(r"^\| `holitom (\w+) (--\w+)` \| `holitom (\w+) (--\w+)` \|", TEXT, re.MULTILINE)
ELSEWHERE = (Plan, CostReport, activation_peak_bytes, matched_to, launch, neighbour_cosine, trace)


def found(path: str) -> bool:
    """Whether there is such a module, or such an attribute of one."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True
    return False


@pytest.mark.parametrize(("old", "new"), NAMES)
def test_names(old: str, new: str):
    assert not new or found(new)
    assert not found(old)
    assert found(old.rsplit(".", 1)[0]), "where it was is still there"


@pytest.mark.parametrize(("old", "new"), [((a, b), (c, d)) for a, b, c, d in OPTIONS])
def test_options(old: tuple[str, str], new: tuple[str, str]):
    words = [new[0], "films", "--question", "?", "--out", "out.jsonl"]
    parse([*words, new[1], "2"])
    with pytest.raises(Exception, match=rf"(?i)is called {new[1]} now|no such option"):
        parse([*words, old[1], "2"])


def test_arguments():
    rows = re.findall(r"^\| `(\w[\w.]*)\(([^)]*)\)`[^|]*\| (?:`\w[\w.]*\(([^)]*)\)`|none)", TEXT, re.MULTILINE)
    assert len(rows) == 9
    known = {n: getattr(holitom, n) for n in holitom.__all__} | {each.__name__: each for each in ELSEWHERE}
    for name, old, new in rows:
        called = eval(name, known)
        taken = inspect.signature(called).parameters
        wider = any(each.kind is each.VAR_KEYWORD for each in taken.values())
        for argument in re.findall(r"(\w+)=", old):
            assert argument not in taken
        for argument in re.findall(r"(\w+)=", new):
            assert argument in taken or wider


def test_the_page_is_read():
    assert len(NAMES) > 12
    assert len(OPTIONS) == 2
