"""What several commands choose by their options: methods, and how long videos are read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from holitom.cli.console import usage
from holitom.cli.loading import recommended

if TYPE_CHECKING:
    from holitom.integrations.vllm.config import ServingConfig
    from holitom.methods.base import Method

COUNTING = frozenset({"retention", "pruning_rate", "dominant", "contextual"})
"""Settings that say how many tokens enter the LLM."""


def renamed(old: str, new: str) -> Callable[[Any], Any]:
    """A callback for an option that has another name now.

    Args:
        old: what it was called.
        new: what it is called.
    """

    def refuse(value: Any) -> Any:
        if value is not None:
            raise typer.BadParameter(f"is called {new} now", param_hint=old)
        return value

    return refuse


def choose(method: str | None, retention: float | None, model: str = "", positions: str | None = None) -> Method | None:
    """The method that the options name.

    Args:
        method: as the command line writes it; ``none``: no method; None: the one that the model recommends, or HoliTom.
        retention: for the method's first stage; None: as the method says, or as the model recommends.
        model: whose recommendation counts for what is not set.
        positions: ``compact`` or ``original``; None: as the method says.

    Raises:
        typer.BadParameter: when there is no such method or setting.
    """
    chosen = _choose(method, retention, model)
    if positions is None:
        return chosen
    if positions not in ("compact", "original"):
        raise typer.BadParameter(f"{positions!r} is neither compact nor original", param_hint="--positions")
    if chosen is None:
        raise typer.BadParameter("without a method every token keeps its place: leave --positions out")
    return chosen.with_positions(positions)  # type: ignore[arg-type]


def in_tower(chosen: Method | None, tower: str | None) -> Method | None:
    """The chosen method (None: uncompressed) behind one inside the vision tower.

    Raises:
        typer.BadParameter: when there is no such method, or it does not go there.
    """
    from holitom.methods.baselines import Uncompressed
    from holitom.methods.registry import with_tower

    if tower is None:
        return chosen
    with usage("--tower"):
        return with_tower(chosen or Uncompressed(), tower)


def _choose(method: str | None, retention: float | None, model: str) -> Method | None:
    from holitom.methods.chain import Chain
    from holitom.methods.registry import method_class, parse, split_text

    if method == "none":
        if retention is not None:
            raise typer.BadParameter("without a method there is nothing to retain: leave --retention out")
        return None
    own = recommended(model)
    with usage():
        if method is None and own is not None:
            wanted, before = own.method, own.method.stage("before")
            if retention is None or before is None or not hasattr(before, "retention"):
                return wanted
            changed: Method = dataclasses.replace(before, retention=retention)  # type: ignore[call-arg]
            return wanted.replaced(before, changed) if isinstance(wanted, Chain) else changed
        method = method or "holitom"
        stages = [split_text(part.strip()) for part in method.split("|")]
        fields = [{field.name: field.default for field in dataclasses.fields(method_class(name))} for name, _ in stages]
        index = next((index for index, each in enumerate(fields) if "retention" in each), 0)
        if retention is None and isinstance(fields[index].get("retention"), float):
            retention = None if own is None or COUNTING & stages[index][1].keys() else own.retention
        if retention is not None:
            parts = method.split("|")
            parts[index] += ("," if ":" in parts[index] else ":") + f"retention={retention}"
            method = "|".join(parts)
        return parse(method)


def check_windows(
    windows: Mapping[str, float | int | None], frames: int | None, retention: float | None, compare: bool
) -> None:
    """Refuses options that do not go with reading in windows.

    Raises:
        typer.BadParameter: naming the options.
    """
    for name in ("window", "fps"):
        value = windows[name]
        if value is not None and not (math.isfinite(value) and value > 0):
            raise typer.BadParameter(f"--{name} must be above 0, got {value}")
    if windows["fps"] is not None and frames is not None:
        raise typer.BadParameter("--fps and --frames both say how many frames to sample: give one of them")
    if windows["tokens"] is not None and retention is not None:
        raise typer.BadParameter("--tokens and --retention both say how much stays: give one of them")
    if compare and (windows["window"], windows["tokens"]) != (None, None):
        raise typer.BadParameter(
            "--compare runs the whole video uncompressed, which one read in windows is too long for: leave it out (the "
            "table counts what it would have cost)"
        )


def served(
    method: str | None, retention: float | None, model: str, positions: str | None = None, tower: str | None = None
) -> ServingConfig:
    """The method that vLLM is to serve, with what that needs where the options say nothing: an exact count, no stage
    inside the LLM. Arguments as for :func:`choose`.

    Raises:
        typer.BadParameter: for a method or a setting that cannot be served, and for a ``tower``.
    """
    if tower is not None:
        raise typer.BadParameter("vLLM's vision towers are its own: use transformers", param_hint="--tower")
    from holitom.integrations.vllm.config import ServingConfig
    from holitom.methods.registry import spell

    if method is None and (chosen := choose(None, retention, model)) is not None:
        method, retention = spell(chosen), None
    more = {"retention": retention, "positions": positions}
    with usage("--method"):
        return ServingConfig.parse(method or "", **{key: value for key, value in more.items() if value is not None})


def choose_all(
    names: list[str], retentions: list[float], positions: list[str] | None = None, tower: str | None = None
) -> list[Method]:
    """The methods that repeated options name: each at each retention, those without a retention of their own once.

    Args:
        names: as the command line writes methods; ``all`` stands for every known one.
        retentions: for methods that name none.
        positions: each method with each of these; None: with its own.
        tower: what stands in front of each, inside the vision tower.

    Raises:
        typer.BadParameter: when there is no such method or setting.
    """
    from holitom.methods.registry import method_class
    from holitom.methods.registry import names as known

    found: list[Method] = []
    for name in [each for given in names for each in (known() if given == "all" else [given])]:
        bare, _, settings = name.partition("|")[0].partition(":")
        fixed = "retention=" in settings
        if not fixed and bare in (*known(), "uncompressed"):
            fixed = "retention" not in {field.name for field in dataclasses.fields(method_class(bare))}
        for share in [None] if fixed else retentions:
            for mode in positions or (None,):
                chosen = in_tower(choose(name, share, positions=mode), tower)
                if chosen is not None and chosen not in found:
                    found.append(chosen)
    return found
