"""Methods by name, and their settings as text."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from method_zoo import VARIANTS
from typer.testing import CliRunner

from holitom.cli.methods import CATALOGUE, catalogue, methods
from holitom.methods import EVS, FastV, HoliTom, PyramidDrop, VisionZip, build, method_class, names, parse, spell
from holitom.methods.registry import BUILTIN


@pytest.mark.parametrize("name", BUILTIN)
def test_every_method_has_a_name_a_class_and_defaults(name: str) -> None:
    cls = method_class(name)
    assert cls.name == name
    assert parse(name) == cls()
    assert cls.paper.startswith("https://") or name in (
        "spread",
        "uniformframes",
        "randomdrop",
        "randominner",
        "averagepool",
        "cellsample",
        "cellmean",
        "renewal",
        "repeatframes",
    )


CHAINS = (
    EVS(retention=0.5) | FastV(layer=3),
    HoliTom(layer=None) | PyramidDrop(),
    VisionZip() | HoliTom(retention=0.2),
)


@pytest.mark.parametrize("method", [*VARIANTS, *CHAINS], ids=repr)
def test_settings_survive_being_written(method: Any) -> None:
    assert parse(spell(method)) == method
    assert parse(method.settings()) == method
    assert parse(json.loads(json.dumps(method.settings()))) == method


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 30), st.booleans())
def test_any_value_survives_being_written(retention: float, layer: int, exact: bool) -> None:
    method = VisionZip(retention=retention, exact=exact) | FastV(layer=layer)
    assert parse(spell(method)) == method


def test_text_reads_as_one_would_write_it() -> None:
    assert parse("holitom:layer=18/28, similarity=none") == HoliTom()
    assert parse("pyramiddrop:layers_at=(8, 16, 24),shares=[0.5, 0.3, 0.1]") == PyramidDrop(
        layers_at=(8, 16, 24), shares=(0.5, 0.3, 0.1)
    )
    assert parse(" evs:exact=True | fastv ") == (EVS(exact=True) | FastV())
    assert parse({"before": {"method": "evs", "retention": 0.5}, "inside": "fastv:layer=3"}) == (
        EVS(retention=0.5) | FastV(layer=3)
    )


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("visonzip", ValueError, "did you mean visionzip"),
        ("nothing-like-it", ValueError, "there are holitom"),
        ("visionzip:retension=0.1", ValueError, "did you mean retention"),
        ("visionzip:dominants=3", ValueError, "did you mean dominant"),
        ("fastv:layer", ValueError, "key=value"),
        ("fastv:layer=2,layer=3", ValueError, "twice"),
        ("evs:retention=2", ValueError, r"\(0, 1\]"),
        ("evs:retention=much", TypeError, "a number"),
        ("evs:exact=1", TypeError, "true or false"),
        ("visionzip:compare=values", ValueError, "'keys' or 'features'"),
        ("pyramiddrop:shares=0.5", TypeError, "tuple"),
        ("evs|fastv|fastv", TypeError, "no stage after"),
        ("evs|vidcom2", TypeError, "inside the LLM"),
        ({"retention": 0.5}, ValueError, "'method'"),
        ({"method": "evs|fastv", "retention": 0.5}, ValueError, "before"),
    ],
)
def test_mistakes_are_named(text: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(text)


def test_long_text_is_read_in_proportion_to_its_length() -> None:
    """Counted, not timed: a pattern that looks ahead from every comma would not come to an end here."""
    for text in ("evs:" + "a," * 200_000, "evs:retention=" + "(" * 100_000, "evs:x=" + "1," * 100_000 + ")"):
        with pytest.raises((ValueError, TypeError)):
            parse(text)


def test_a_method_of_the_same_name_is_not_taken_for_another() -> None:
    @dataclasses.dataclass(frozen=True)
    class Other(EVS):
        pass

    with pytest.raises(ValueError, match="Other"):
        spell(Other())
    assert build("evs", {"retention": 0.5}) == EVS(0.5)


def test_the_catalogue_lists_every_method() -> None:
    app = typer.Typer()
    app.command()(methods)
    listed = CliRunner().invoke(app, ["--json"])
    assert listed.exit_code == 0
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert list(rows) == names()
    assert (rows["fastv"]["before"], rows["fastv"]["inside"]) == (False, True)
    assert rows["visionzip"]["needs"] == ["keys", "scores"]
    assert rows["cdpruner"]["needs"] == ["question"]
    assert (rows["earlytom"]["tower"], rows["earlytom"]["before"], rows["earlytom"]["venue"]) == (
        True,
        True,
        "CVPR 2026",
    )
    assert all(row["venue"] and row["looks_at"] for row in rows.values() if row["paper"])
    assert (rows["evs"]["count"], rows["vidcom2"]["count"], rows["fastv"]["count"]) == ("exact", "exact=True", "")
    table = CliRunner().invoke(app, [])
    assert table.exit_code == 0
    assert all(name in table.stdout for name in rows)
    assert "NeurIPS" in table.stdout


def test_the_catalogue_that_is_listed_without_torch_is_the_true_one():
    found = json.loads(json.dumps([row for row in catalogue() if row["origin"] == "holitom"]))
    assert json.loads(CATALOGUE.read_text("utf-8")) == found, "run python docs/method_catalogue.py"
