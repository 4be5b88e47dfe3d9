"""``holitom methods``: the catalogue."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from holitom.cli.console import say, say_json, show

LEGEND = """\
where: in the vision tower, before the LLM, inside it; with the attention that it
  reads there: of the last prompt token in the layer before (last) or the layer
  after (coming), or of all text after the video (text).
looks at: what it chooses by; change is that from frame to frame. --json lists
  what it needs beside the features.
count of tokens that enter the LLM: exact, known from the video's shape;
  exact=True, on request."""


CATALOGUE = Path(__file__).parent.parent / "assets" / "methods.json"
"""What :func:`catalogue` gives, so that listing it needs no torch; `python docs/method_catalogue.py` renews it."""


def listed() -> list[dict[str, Any]]:
    """The catalogue as it was written down; where other packages bring methods, as it is found."""
    from importlib.metadata import entry_points

    if entry_points(group="holitom.methods"):
        return catalogue()
    rows: list[dict[str, Any]] = json.loads(CATALOGUE.read_text("utf-8"))
    return rows


def catalogue() -> list[dict[str, Any]]:
    """One entry for each method: name, class, paper and venue, stages, what it looks at, whether its count is exact."""
    from holitom.methods.registry import BUILTIN, method_class, names

    rows = []
    for name in names():
        cls = method_class(name)
        inner = "inside" in cls.stages
        fields = {field.name for field in dataclasses.fields(cls)}
        rows.append(
            {
                "name": name,
                "class": cls.__name__,
                "paper": cls.paper,
                "venue": cls.venue,
                "looks_at": cls.looks_at or ", ".join(sorted(cls.needs)),
                "tower": "tower" in cls.stages,
                "before": "before" in cls.stages,
                "inside": inner,
                "needs": sorted(cls.needs),
                "attention": cls.attention if inner else "none",
                "count": "" if "before" not in cls.stages else _count(cls.exact_count, "exact" in fields),
                "settings": {field.name: field.default for field in dataclasses.fields(cls)},
                "origin": "holitom" if name in BUILTIN else cls.__module__.partition(".")[0],
            }
        )
    return rows


def _count(exact: bool, offered: bool) -> str:
    return "exact" if exact else "exact=True" if offered else "content"


def methods(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with what each needs and every setting.")
    ] = False,
) -> None:
    """List the methods: where they work, what they need, and whether their token count is known in advance."""
    rows = listed()
    if as_json:
        say_json(rows)
        return
    table = Table()
    for title in ("method", "published", "where", "looks at", "count", "paper"):
        table.add_column(title, no_wrap=title in ("method", "count", "paper"), overflow="fold")
    for row in rows:
        inside = "inside" if row["attention"] == "none" else f"inside ({row['attention']})"
        places = {"tower": row["tower"], "before": row["before"], inside: row["inside"]}
        table.add_row(
            row["name"],
            row["venue"],
            ", ".join(place for place, there in places.items() if there),
            row["looks_at"],
            row["count"],
            row["paper"].removeprefix("https://").replace("arxiv.org/abs/", ""),
        )
    show(table)
    say(LEGEND)
