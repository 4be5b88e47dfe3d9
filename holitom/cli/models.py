"""``holitom models``: which families of video LLMs are supported, and how far."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from holitom.cli import options
from holitom.cli.console import say, say_json, show

TESTED = "tiny models, alone and in batches, against a computation by hand"
LEGEND = f"""\
tower: patches are merged inside the vision tower, too (see docs/tower.md).
before: tokens are merged before the LLM. inside: in the middle of it, too; no: linear,
  sliding or kind-dependent layers, for which layer=None asks for the stage before alone.
windows: long videos are read window by window (ask, caption: --window, --tokens, --fps);
  every other command takes every family.
vLLM: served (`holitom serve`) by an own class, on vLLM's Transformers backend, or not at
  all (docs/serving.md says why).
patch scores, read from the vision tower as it works: received, the attention that a
  patch receives, mean over heads and queries; CLS, what the class token pays it.
tested: {TESTED}."""


def catalogue() -> list[dict[str, Any]]:
    """One entry for each transformers class: family, class, stages, where patch scores come from, how it is tested."""
    from holitom.integrations.vllm.architectures import served_by
    from holitom.models import Adapter, supported

    return [
        {
            "family": adapter.families.get(name, name.removesuffix("ForConditionalGeneration")),
            "class": name,
            "before": True,
            "inside": adapter.inner,
            "windows": adapter.windows,
            "vllm": served_by(name),
            "tower": adapter.tower is not Adapter.tower,
            "scores": adapter.scores_from,
            "tested": TESTED if adapter.__module__.startswith("holitom.") else "by its own package",
            "origin": "holitom" if adapter.__module__.startswith("holitom.") else adapter.__module__.partition(".")[0],
        }
        for name, adapter in sorted(supported().items())
    ]


def models(as_json: options.AsJson = False) -> None:
    """List the families of models: their classes, the stages that work, vLLM, and where patch scores come from."""
    rows = catalogue()
    if as_json:
        say_json(rows)
        return
    table = Table()
    for title in ("family", "class", "tower", "before", "inside", "windows", "vLLM", "patch scores"):
        table.add_column(title, no_wrap=title not in ("vLLM", "patch scores"), overflow="fold")
    for row in rows:
        table.add_row(
            row["family"],
            row["class"].replace("ForConditionalGeneration", "…"),
            "yes" if row["tower"] else "no",
            "yes",
            "yes" if row["inside"] else "no",
            "yes" if row["windows"] else "no",
            row["vllm"],
            row["scores"],
        )
    show(table)
    say("…: ForConditionalGeneration\n" + LEGEND)
