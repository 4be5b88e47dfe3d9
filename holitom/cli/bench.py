"""``holitom bench``: time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holitom.cli import options
from holitom.cli.checks import check_device, check_folder
from holitom.cli.choices import choose_all
from holitom.cli.console import counted, err, optional, quiet_libraries, say, say_json, show, usage
from holitom.cli.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from holitom.bench import Report, Workload
    from holitom.methods.base import Method

PRESET_NAMES = (
    "llava-onevision-0.5b, llava-onevision-7b, llava-onevision-72b, qwen2.5-vl-3b, qwen2.5-vl-7b, qwen3-vl-2b, "
    "qwen3-vl-8b, tiny"
)


def bench(
    model: Annotated[str | None, typer.Argument(help="Path or hub id of a checkpoint.")] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Instead, random weights in a published shape: {PRESET_NAMES}.")
    ] = None,
    method: options.Methods = None,
    retention: options.Retentions = None,
    positions: options.EachPositions = None,
    tower: options.Tower = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each video.")] = 32,
    static: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the picture that never changes; for stages inside the tower.")
    ] = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time, each with its own video.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of text in a prompt.")] = 40,
    longer: Annotated[int, typer.Option(min=0, help="Tokens by which each prompt is longer than the last.")] = 0,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 32,
    attention: Annotated[str, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = "sdpa",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...  [default: a GPU if any]")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured rounds; in each, all methods take their turn.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Rounds before them that do not count.")] = 1,
    backend: Annotated[
        str | None,
        typer.Option(
            "--compile",
            metavar="BACKEND",
            help="Also decode compiled: inductor (as generate() does by itself on a GPU), cudagraphs, eager.",
        ),
    ] = None,
    share_tower: Annotated[
        bool,
        typer.Option(
            "--share-tower", help="Encode once for all methods with the same needs; for machines with a slow tower."
        ),
    ] = False,
    clock: Annotated[
        str, typer.Option(help="wall; or process: processor time, for a CPU that others use too, with one thread.")
    ] = "wall",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for JSON and plots; a run found there is continued.")
    ] = None,
    accuracy: Annotated[
        Path | None, typer.Option(help="accuracy.json of `holitom eval`: also draws accuracy over FLOPs.")
    ] = None,
    max_frames: Annotated[
        bool, typer.Option("--max-frames", help="Double the frames until memory ends, and see how each stage grows.")
    ] = False,
    frame_limit: Annotated[int | None, typer.Option(min=1, help="Where --max-frames stops at the latest.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write a torch profiler trace and a stage summary per method.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure what methods cost, side by side with the uncompressed model: time, memory, tokens, FLOPs."""
    from holitom.bench import bench as run
    from holitom.bench import bench_compiled, fresh_report, resume
    from holitom.bench.measure import CLOCKS
    from holitom.bench.pixels import description
    from holitom.methods.baselines import Uncompressed

    if (model is None) == (preset is None):
        raise typer.BadParameter("give either the path or id of a model, or --preset", param_hint="MODEL")
    if profile and out_folder is None:
        raise typer.BadParameter("a profile is made of files: give --out", param_hint="--profile")
    if clock not in CLOCKS:
        raise typer.BadParameter(f"{clock!r} is none of {', '.join(CLOCKS)}", param_hint="--clock")
    if backend is not None:
        _check_backend(backend, answer_tokens, max_frames)
    check_device(device)
    check_folder("--out", out_folder)
    if accuracy is not None and not accuracy.is_file():
        raise typer.BadParameter(f"there is no file {accuracy}", param_hint="--accuracy")
    methods = [Uncompressed(), *choose_all(method or ["holitom"], retention or [0.1], positions, tower)]
    settings: dict[str, Any] = {
        "model": model or preset,
        "weights": "random" if preset else "loaded",
        "frames": frames,
        **({"static": static} if static else {}),
        "batch": batch_size,
        "prompt_tokens": prompt_tokens,
        **({"longer": longer} if longer else {}),
        **({"compile": backend} if backend else {}),
        "answer_tokens": answer_tokens,
        "attention": attention,
        "dtype": dtype,
        "share_tower": share_tower,
        "clock": clock,
        "repeats": repeats,
        "warmup": warmup,
    }
    make = _maker(model, preset, settings, device, as_json)
    if max_frames:
        _sweep(make, methods, settings, frames, frame_limit, out_folder, as_json)
        return
    workload = make(frames)
    if clock == "process" and workload.device.type != "cpu":
        raise ValueError("processor time says nothing about an accelerator: --clock process is for --device cpu")
    report = fresh_report(workload, settings, methods)
    report.notes.append(f"video: {description(static)}")
    path = None if out_folder is None else out_folder / "results.json"
    if path is not None:
        report = resume(path, report)

    def save(current: Report) -> None:
        if path is not None:
            current.save(path)

    left = max(0, repeats - len(report.rounds))
    turns = (left + warmup if left else 0) + (backend is not None)
    with counted("runs", len(methods) * turns, hidden=as_json, named=True) as done:
        run(workload, methods, report, share_tower=share_tower, save=save, done=done)
        if backend:
            bench_compiled(workload, methods, report, save=save, done=done)
    save(report)
    profiles = _profile(workload, methods, report, out_folder, as_json) if profile and out_folder else None
    if out_folder is not None:
        _plots(report, out_folder, accuracy)
    _show(report, profiles, as_json)
    if "uncompressed" in report.failures:
        raise RuntimeError(f"the uncompressed model failed: {report.failures['uncompressed']}")


def _maker(
    model: str | None, preset: str | None, settings: dict[str, Any], device: str | None, quiet: bool
) -> Callable[[int], Workload]:
    """The model, loaded or built once, as a function from frames to a workload."""
    import torch

    from holitom.bench import build, from_pipeline, from_preset
    from holitom.bench.presets import preset as known

    dtype, attention = settings["dtype"], settings["attention"]
    given = {"batch": settings["batch"], "text": settings["prompt_tokens"], "answer": settings["answer_tokens"]}
    given |= {name: settings[name] for name in ("static", "longer") if name in settings}
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise typer.BadParameter(f"{dtype!r} is no floating type: bfloat16, float16, float32", param_hint="--dtype")
    if model is not None:
        pipeline = load(model, device, dtype, attention, quiet)
        return lambda frames: from_pipeline(pipeline, frames, **given)
    name = str(preset)
    with usage("--preset"):
        known(name)
    quiet_libraries()
    built = build(name, device or ("cuda" if torch.cuda.is_available() else "cpu"), kind, attention)
    return lambda frames: from_preset(name, built, frames, **given)


def _check_backend(backend: str, answer: int, sweeping: bool) -> None:
    import torch

    if backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise typer.BadParameter(f"{backend!r} is none of torch's backends ({known}, eager)", param_hint="--compile")
    if answer < 2:
        raise typer.BadParameter("decoding needs --answer-tokens of at least 2", param_hint="--compile")
    if sweeping:
        raise typer.BadParameter("not together with --max-frames", param_hint="--compile")


def _show(report: Report, profiles: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        say_json({**report.as_dict(), **({"profiles": profiles} if profiles else {})})
        return
    from holitom.report.bench import bench_rich

    show(bench_rich(report))
    for name, found in (profiles or {}).items():
        parts = ", ".join(f"{stage} {1e3 * entry['host']:,.1f} ms" for stage, entry in found["stages"].items())
        say(f"profile of {name}: {parts}; {found['trace']}")


def _profile(workload: Workload, methods: list[Method], report: Report, folder: Path, quiet: bool) -> dict[str, Any]:
    from holitom.bench.profile import profile
    from holitom.evaluation import label
    from holitom.resume import write_json

    found: dict[str, Any] = {}
    for each in methods:
        if label(each) not in report.failures:
            found[label(each)] = profile(workload, each, folder)
    write_json(folder / "profile.json", found)
    return found


def _plots(report: Report, folder: Path, accuracy: Path | None) -> None:
    from holitom.report.bench import bench_plots

    with optional("plot"):
        bench_plots(report, folder)
        if accuracy is None:
            return
        from holitom.report.accuracy import accuracy_plot

        try:
            table = json.loads(accuracy.read_text(encoding="utf-8"))
            title = f"{table['clips']} clips, model {table['model']}"
            accuracy_plot(table["methods"], folder / "accuracy_over_flops.png", title)
        except (KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{accuracy} is no accuracy.json of `holitom eval`: {error}") from error


def _sweep(
    make: Callable[[int], Workload],
    methods: list[Method],
    settings: dict[str, Any],
    start: int,
    limit: int | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    from holitom.bench.machine import machine
    from holitom.bench.sweep import sweep
    from holitom.report.bench import sweep_plot, sweep_rich
    from holitom.resume import write_json

    where = machine(make(1).device)

    def save(found: dict[str, Any]) -> None:
        if folder is not None:
            write_json(folder / "sweep.json", {"settings": settings, "machine": where, **found})

    with err.status("sweeping ...") as status:
        found = sweep(
            make,
            methods,
            start=start,
            limit=limit,
            repeats=settings["repeats"],
            share_tower=settings["share_tower"],
            save=save,
            done=lambda text: status.update(text) if not as_json else None,
        )
    if folder is not None:
        with optional("plot"):
            sweep_plot(found, folder / "sweep.png")
    if as_json:
        say_json({"settings": settings, "machine": where, **found})
        return
    show(sweep_rich(found))
