"""How long a vision tower takes in which only what changed is computed.

    python benchmarks/tower.py [--towers siglip qwen2.5-vl] [--frames 8] [--static 0 0.3 0.6 0.9] [--rounds 3]
                               [--json FILE]

Towers of published shapes with random weights: SigLIP-so400m as in LLaVA-OneVision (384 pixels, 729 patches, 26
layers) and that of Qwen2.5-VL (392 pixels, 784 patches, steps of two frames, 32 blocks with windows). Of each video a
stated share of the picture never changes (see holitom/bench/pixels.py). "renewal" is Renewal() in a session, from
pixels to what enters the LLM; the untouched tower is transformers' own, without a session. All in turns, on one thread;
times are processor time, and each ratio is that of one round, so that other work on the machine disturbs both alike.
"rows" is the share of the patches that the tower computed, mean over its blocks. A large tower with trained weights was
not available: these are figures of time, not of what the states are worth.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from holitom.bench import pixels
from holitom.bench.machine import machine
from holitom.bench.presets import config, fill, preset
from holitom.cost import interleave
from holitom.methods.renewal import Renewal
from holitom.runtime import layouts_of

TOWERS = {"siglip": "llava-onevision-0.5b", "qwen2.5-vl": "qwen2.5-vl-3b"}


def build(name: str, blocks: int | None, dtype: torch.dtype) -> Any:
    """A model with this tower and the smallest of language models behind it."""
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


def renewed(model: Any, given: dict[str, torch.Tensor], method: Renewal, shares: list[float]) -> None:
    """:func:`encode` with renewal; writes down the share of rows."""
    with method(model), torch.inference_mode():
        output = model.base_model.get_video_features(**given, return_dict=True)
    shares[:] = [layout.tower.share for layout in layouts_of(output) or [] if layout.tower is not None]


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--static", type=float, nargs="+", default=[0.0, 0.3, 0.6, 0.9])
    parser.add_argument("--blocks", type=int, help="blocks of the tower, in place of the published number")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    where = machine(torch.device("cpu"))
    found: dict[str, Any] = {
        "machine": where,
        "threads": 1,
        "frames": options.frames,
        "rounds": options.rounds,
        "warmup": options.warmup,
        "dtype": options.dtype,
        "blocks": options.blocks or "all",
    }
    for name in options.towers:
        model = build(name, options.blocks, dtype)
        frames = options.frames if name == "siglip" else 2 * options.frames
        shares: dict[str, list[float]] = {f"{static:g}": [] for static in options.static}
        runs = {
            f"{static:g}": functools.partial(renewed, model, video(name, frames, static, dtype), Renewal(), shares[key])
            for key, static in zip(shares, options.static, strict=True)
        }
        runs = {"untouched": functools.partial(encode, model, video(name, frames, 0.0, dtype)), **runs}
        samples = interleave(runs, repeats=options.rounds, warmup=options.warmup, clock=time.process_time)
        base = samples["untouched"]
        print(f"{name}: {frames} frames, {base.median:.1f} s untouched, {options.rounds} rounds in turns")
        found[name] = {"frames": frames, "untouched": base.as_dict(), "static": {}}
        for key, rows in shares.items():
            ratios = [own / plain for own, plain in zip(samples[key].seconds, base.seconds, strict=True)]
            middle = statistics.median(ratios)
            found[name]["static"][key] = {"ratio": middle, "ratios": ratios, "rows": rows[0]}
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"  {key} static: rows {rows[0]:.3f}, {middle:.3f} times as long ({spread})")
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
