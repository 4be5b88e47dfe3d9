"""``holitom recommend``: which setting to start with, from what was measured, and what was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from holitom.cli import options
from holitom.cli.console import say, say_json
from holitom.cli.loading import recommended, resolve

MEASURED = Path(__file__).parent.parent / "assets" / "measured.json"
"""Figures of committed runs, each with the file that it is from; `python docs/measured.py` renews it."""

COPY = {
    "transformers": 'holitom ask film.mp4 "What happens?" --model {model} --method "{method}" --compare',
    "vllm": 'holitom serve {model} --method "{method}"',
    "corpus": 'holitom caption films/ --question "What happens?" --model {model} --method "{method}" --out out.parquet',
}
ANY = "path/to/checkpoint"
CALIBRATE = 'holitom calibrate films/ --question "What happens?" --model {model} --recommend'


def recommend(
    model: Annotated[
        str | None, typer.Option(help="Path or hub id of a checkpoint, or `tiny`.  [default: any model]")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a video.  [default: any number]")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Videos in a batch.  [default: any number]")] = None,
    place: Annotated[str, typer.Option(help=f"Where it runs: {', '.join(COPY)}.")] = "transformers",
    loss: Annotated[
        float, typer.Option(min=0, max=100, help="Points of the testbed's accuracy that may be lost, by its interval.")
    ] = 1.0,
    as_json: options.AsJson = False,
) -> None:
    """Name a setting to start with, the measurements behind it, and what was not measured."""
    if place not in COPY:
        raise typer.BadParameter(f"{place!r} is none of {', '.join(COPY)}", param_hint="--place")
    measured = json.loads(MEASURED.read_text("utf-8"))
    found = answer(measured, model, {"frames": frames, "batch": batch}, place, loss)
    if as_json:
        say_json(found)
        return
    say(f"{found['method']}: {found['why']}\n  {found['copy']}\n\nmeasured")
    for fact in found["measured"]:
        say(f"* {fact['figure']}\n    {fact['of']}; {fact['run']}")
    say("\nnot measured\n" + "\n".join(f"* {each}" for each in found["not_measured"]))


def answer(
    measured: dict[str, Any], model: str | None, shape: dict[str, int | None], place: str, loss: float
) -> dict[str, Any]:
    """What the command prints: ``method``, ``why``, ``copy``, ``measured`` (figure, of what, run), ``not_measured``.

    Args:
        measured: the content of :data:`MEASURED`.
        model: a checkpoint; None: any.
        shape: ``frames`` and ``batch``; None: any.
        place: a key of :data:`COPY`.
        loss: points of accuracy that may be lost.

    Raises:
        ValueError: when there is no such model, or vLLM does not serve it.
    """
    config = config_of(model) if model else None
    row, why = choose(measured["accuracy"]["methods"], place, loss, config)
    facts: list[dict[str, Any]] = []
    missing: list[str] = []
    own = recommended(model) if model else None
    if own is None:
        whose = f"of {model}" if model else "of any model with billions of parameters"
        missing.append(f"accuracy {whose}; ask it: {CALIBRATE.format(model=model or ANY)}")
    else:
        from holitom.methods.registry import parse, spell

        why, rows = "what the checkpoint itself recommends", measured["accuracy"]["methods"]
        row = next((each for each in rows if parse(each["method"]) == own.method), {"method": spell(own.method)})
        facts.append(fact(own.measured_on, "the checkpoint's own words", "its holitom.json"))
    method = row["method"]
    if "accuracy" in row:
        facts.append(accuracy_of(measured["accuracy"], row))
    preset = preset_of(measured["shapes"], model, config)
    wanted = {key: value for key, value in {"model": preset, **shape}.items() if value is not None}
    times = [
        time_of(run)
        for run in measured["times"]
        if place != "vllm"
        and (model is None or preset)
        and name_of(run["method"]) == name_of(method)
        and wanted.items() <= run.items()
    ]
    if not times:
        units = {"frames": "frames", "batch": "videos in a batch"}
        at = [f"{value} {units[key]}" for key, value in shape.items() if value is not None]
        at += [f"the shape of {model}"] * (model is not None)
        inside = " inside vLLM" if place == "vllm" else ""
        missing.append(f"the time of {name_of(method)}{inside}" + (f" with {', '.join(at)}" if at else ""))
    facts += times
    if place == "corpus":
        facts.append(corpus_of(measured["corpus"]))
    if place != "vllm":
        behind = [row for row in measured["tower"]["methods"] if name_of(row["method"]) == name_of(method)]
        facts += [tower_of(measured["tower"], row) for row in behind]
    copy = COPY[place].format(model=model or ANY, method=method)
    return {"method": method, "why": why, "copy": copy, "measured": facts, "not_measured": missing}


def choose(
    rows: list[dict[str, Any]], place: str, loss: float, config: dict[str, Any] | None
) -> tuple[dict[str, Any], str]:
    """The fewest tokens that lose no more than ``loss`` points, or else the least loss; and that in words."""
    fitting = [row for row in rows if place in row["places"]]
    if place == "vllm":
        from holitom.integrations.vllm.architectures import ONE_AXIS, serving_architecture

        names = (config or {}).get("architectures") or []
        for name in names:
            serving_architecture(name)
        if not names or {*names} & {*ONE_AXIS}:  # vLLM counts their positions on; of an unknown model this holds too
            fitting = [row for row in fitting if row["positions"] == "compact"]
    whole = f"of {len(fitting)} settings on the testbed that work there"
    within = [row for row in fitting if 100 * row["difference"][1] >= -loss]
    if within:
        best = min(within, key=lambda row: (round(row["tokens"], 2), -row["accuracy"][0]))
        return best, f"the fewest tokens {whole}, with a loss within {loss:g} %"
    best = max(fitting, key=lambda row: row["difference"][1])
    return best, f"the least loss {whole}, of which none is within {loss:g} %"


def config_of(model: str) -> dict[str, Any] | None:
    """A checkpoint's config.json; None where it is not on this machine."""
    from holitom.recommendation import local_file

    path = local_file(resolve(model), "config.json")
    return None if path is None else json.loads(path.read_text("utf-8"))


def preset_of(shapes: dict[str, Any], model: str | None, config: dict[str, Any] | None) -> str | None:
    """The measured shape that a checkpoint has; None where it has none of them, or its config is not known."""
    for name, shape in shapes.items():
        if model == shape["source"]:
            return name
        text = (config or {}).get("text_config", {})
        if config and config["model_type"] == shape["model_type"] and shape["text"].items() <= text.items():
            return name
    return None


def name_of(method: str) -> str:
    """A method without its settings."""
    return "|".join(part.partition(":")[0] for part in method.split("|"))


def fact(figure: str, of: str, run: str) -> dict[str, str]:
    """One measurement."""
    return {"figure": figure, "of": of, "run": run}


def points(interval: list[float], sign: str = "") -> str:
    """A share and its interval, in percent."""
    value, low, high = (100 * part for part in interval)
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def accuracy_of(bed: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """What a method keeps on the testbed."""
    figure = f"accuracy {points(row['accuracy'])} % at {100 * row['tokens']:.0f} % of the tokens"
    rest = f"uncompressed {100 * bed['uncompressed'][0]:.1f} %, difference {points(row['difference'], '+')} points"
    return fact(f"{figure}; {rest}", f"the {bed['model']} model, {bed['clips']} {bed['split']} clips", bed["run"])


def time_of(run: dict[str, Any]) -> dict[str, str]:
    """How much sooner the first token came."""
    found = [f"first token {run['first']:.2f} times as early as {run['against']}"]
    found += [f"LLM prefill {run['prefill']:.2f} times as fast"] if "prefill" in run else []
    found += [f"{100 * run['kv_cache']:.0f} % of the KV cache"] if "kv_cache" in run else []
    where = f"{run['method']}; {run['model']} (random weights), {run['frames']} frames, batch {run['batch']}"
    where += f", {100 * run['static']:.0f} % of the picture static" if run["static"] else ""
    return fact(", ".join(found), f"{where}, {run['device']}", run["run"])


def tower_of(bed: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """What a stage inside the vision tower adds where much stays the same."""
    figure = f"--tower renewal computes {100 * row['tower_flops']:.0f} % of the vision tower's FLOPs"
    figure += f", difference {points(row['difference'], '+')} points"
    return fact(figure, f"{row['method']}; {bed['clips']} clips from a camera that stands still", bed["run"])


def corpus_of(films: dict[str, Any]) -> dict[str, str]:
    """What two workers add in a corpus."""
    figure = f"{films['median']:.2f} [{films['least']:.2f}, {films['most']:.2f}] times the rows of one loop"
    return fact(figure, f"two workers, films of {films['frames']} frames, the tiny model on a CPU", films["run"])
