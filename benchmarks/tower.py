"""How long a vision tower takes in which only what changed is computed.

    python benchmarks/tower.py [--towers siglip qwen2.5-vl] [--frames 8] [--static 0 0.3 0.6 0.9] [--rounds 3]
                               [--threads 1] [--compile] [--out FOLDER]

Towers of published shapes with random weights: SigLIP-so400m as in LLaVA-OneVision (384 pixels, 729 patches, 26
layers) and that of Qwen2.5-VL (392 pixels, 784 patches, steps of two frames, 32 blocks with windows). Of each video a
stated share of the picture never changes (see holitom/bench/pixels.py). "renewal" is Renewal() in a session, from
pixels to what enters the LLM; the untouched tower is transformers' own, without a session. All in turns, and each ratio
is that of one round, so that other work on the machine disturbs both alike; with one thread, times are processor time.
"rows" is the share of the patches that the tower computed, mean over its blocks. A large tower with trained weights was
not available: these are figures of time, not of what the states are worth. --compile measures, in place of Renewal, the
untouched tower with its blocks compiled (torch.compile(dynamic=True), inductor).

FOLDER/tower_NAME.json is written after each round, and a run with the same settings goes on where it was. Two towers in
two processes take as long as the slower one.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from holitom.bench import pixels
from holitom.bench.machine import machine
from holitom.bench.presets import config, fill, preset
from holitom.cost import interleave
from holitom.methods.renewal import Renewal
from holitom.runtime import layouts_of
from holitom.video.torchvision import hide_broken_torchvision

TOWERS = {"siglip": "llava-onevision-0.5b", "qwen2.5-vl": "qwen2.5-vl-3b"}


def build(name: str, blocks: int | None, dtype: torch.dtype) -> Any:
    """A model with this tower and the smallest of language models behind it."""
    hide_broken_torchvision()
    from transformers import AutoModelForImageTextToText

    shape = config(TOWERS[name])
    shape.text_config.num_hidden_layers, shape.text_config.vocab_size = 1, 1000
    if blocks is not None:
        setattr(shape.vision_config, "depth" if name != "siglip" else "num_hidden_layers", blocks)
    model = AutoModelForImageTextToText.from_config(shape, dtype=dtype)
    fill(model)
    return model.eval()


def video(name: str, frames: int, static: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The arguments of ``get_video_features`` for one video."""
    shown = pixels.frames(frames, preset(TOWERS[name]).side, static=static).to(dtype)
    if name == "siglip":
        return {"pixel_values_videos": shown[None]}
    values, grid = pixels.patches(shown, 14)
    return {"pixel_values_videos": values, "video_grid_thw": torch.tensor([grid])}


@torch.inference_mode()
def encode(model: Any, given: dict[str, torch.Tensor]) -> None:
    """From pixels to what enters the language model."""
    model.base_model.get_video_features(**given, return_dict=True)


def blocks_of(model: Any) -> list[Any]:
    """The tower's blocks."""
    base = model.base_model
    return list(base.visual.blocks if hasattr(base, "visual") else base.vision_tower.encoder.layers)


def encode_with(model: Any, given: dict[str, torch.Tensor], forwards: list[Callable[..., Any]]) -> None:
    """:func:`encode` with another ``forward`` of each block."""
    for block, forward in zip(blocks_of(model), forwards, strict=True):
        block.forward = forward
    try:
        encode(model, given)
    finally:
        for block in blocks_of(model):
            del block.forward


def renewed(model: Any, given: dict[str, torch.Tensor], method: Renewal, shares: list[float]) -> None:
    """:func:`encode` with renewal; writes down the share of rows."""
    with method(model), torch.inference_mode():
        output = model.base_model.get_video_features(**given, return_dict=True)
    shares[:] = [layout.tower.share for layout in layouts_of(output) or [] if layout.tower is not None]


def measure(name: str, options: argparse.Namespace, file: Path | None) -> dict[str, Any]:
    """One tower's rounds: seconds of each run, by round; what a file of the same settings holds is kept."""
    dtype = getattr(torch, options.dtype)
    settings = {
        "tower": name,
        "frames": options.frames if name == "siglip" else 2 * options.frames,
        "blocks": options.blocks or "all",
        "dtype": options.dtype,
        "threads": options.threads,
        "clock": "processor" if options.threads == 1 else "wall",
        "static": options.static,
    }
    found: dict[str, Any] = {"settings": settings, "machine": machine(torch.device("cpu")), "rows": {}, "rounds": []}
    if file is not None and file.exists():
        found = json.loads(file.read_text())
        if found["settings"] != settings:
            raise SystemExit(f"{file} holds a run with other settings: {found['settings']}")
    model = build(name, options.blocks, dtype)
    compiled = [torch.compile(block.forward, dynamic=True) for block in blocks_of(model)] if options.compile else []
    shares: dict[str, list[float]] = {f"{static:g}": [] for static in options.static}

    def runs(frames: int) -> dict[str, Callable[[], object]]:
        each: dict[str, Callable[[], object]] = {
            "untouched": functools.partial(encode, model, video(name, frames, 0.0, dtype))
        }
        if compiled:
            each["compiled"] = functools.partial(encode_with, model, video(name, frames, 0.0, dtype), compiled)
        for key, static in zip(shares, options.static, strict=True):
            shown = video(name, frames, static, dtype)
            each[key] = functools.partial(renewed, model, shown, Renewal(), shares[key])
        return each

    clock = time.process_time if options.threads == 1 else time.perf_counter
    first = runs(2)
    once = ("untouched", list(first)[-1])  # what only first calls do
    interleave({key: first[key] for key in once}, repeats=1, warmup=0)
    measured = runs(settings["frames"])
    if compiled:
        measured["compiled"]()  # other sizes
    for _ in track(range(len(found["rounds"]), options.rounds), name):
        samples = interleave(measured, repeats=1, warmup=0, clock=clock)
        found["rounds"].append({key: sample.seconds[0] for key, sample in samples.items()})
        found["rows"] = {key: rows[0] for key, rows in shares.items()}
        if file is not None:
            file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument("--frames", type=int, default=8, help="twice as many for Qwen2.5-VL, which joins two")
    parser.add_argument("--static", type=float, nargs="+", default=[0.0, 0.3, 0.6, 0.9])
    parser.add_argument("--blocks", type=int, help="blocks of the tower, in place of the published number")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compiled blocks in place of Renewal")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.compile:
        options.static = []  # a session makes compiled code stale
    torch.set_num_threads(options.threads)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    for name in options.towers:
        found = measure(name, options, options.out / f"tower_{name}.json" if options.out else None)
        seconds = statistics.median(each["untouched"] for each in found["rounds"])
        print(f"{name}: {found['settings']['frames']} frames, {seconds:.1f} s untouched, {len(found['rounds'])} rounds")
        for key in [key for key in found["rounds"][0] if key != "untouched"]:
            ratios = [each[key] / each["untouched"] for each in found["rounds"]]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            what = f"{key} static: rows {found['rows'][key]:.3f}" if key in found["rows"] else key
            print(f"  {what}, {statistics.median(ratios):.3f} times as long ({spread})")


if __name__ == "__main__":
    main()
