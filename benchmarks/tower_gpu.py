"""Where the vision tower's time goes on a GPU, and what comes of it until the first token.

    python benchmarks/tower_gpu.py [--preset llava-onevision-7b] [--device cuda] [--frames 32] [--out FILE]

Parts of LLaVA-OneVision's tower by themselves: patch embedding, one encoder layer and its parts, projector, and pooling
as transformers writes it and without turning the features. Then the time to the first token of videos of which a stated
share of the picture never changes: stock transformers, the same features sooner, HoliTom, and HoliTom behind Renewal,
in turns; of 32 frames 0.57 and 0.84 leave half and 0.28 of the rows behind the first block. FILE is written after each
figure.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from holitom.bench import build, from_preset
from holitom.bench.machine import machine
from holitom.bench.measure import FIRST, TOWER, measure
from holitom.cost import interleave
from holitom.methods import parse
from holitom.models import adapter_for
from holitom.resume import write_json
from holitom.video.torchvision import hide_broken_torchvision

METHODS = ("uncompressed:stock=true", "uncompressed", "holitom", "renewal|holitom:retention=0.1")


def parts(model: Any, frames: int) -> dict[str, Callable[[], object]]:
    """Pieces of a LLaVA-OneVision tower as functions, on random input of the right shape."""
    base = model.model
    tower = getattr(base.vision_tower, "vision_model", base.vision_tower)
    config, weight = base.config.vision_config, next(tower.parameters())
    side = config.image_size // config.patch_size
    like = {"device": weight.device, "dtype": weight.dtype}
    pixels = torch.randn(frames, 3, config.image_size, config.image_size, **like)
    states = torch.randn(frames, side**2, config.hidden_size, **like)
    features = torch.randn(frames, side**2, base.config.text_config.hidden_size, **like)
    layer = tower.encoder.layers[0]
    ours = adapter_for(model).shortcuts()["apply_pooling"]
    return {
        "patch embedding": lambda: tower.embeddings(pixels),
        "encoder layer": lambda: layer(states, attention_mask=None),
        "encoder layer: norm": lambda: layer.layer_norm1(states),
        "encoder layer: attention": lambda: layer.self_attn(hidden_states=states, attention_mask=None),
        "encoder layer: mlp": lambda: layer.mlp(states),
        "projector": lambda: base.multi_modal_projector(states),
        "pooling, transformers": lambda: base.apply_pooling(features),
        "pooling, here": lambda: ours(features),
    }


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="llava-onevision-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--static", type=float, nargs="+", default=[0.0, 0.57, 0.84])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    hide_broken_torchvision()
    model = build(options.preset, options.device, getattr(torch, options.dtype))
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    found: dict[str, Any] = {"settings": settings, "machine": machine(torch.device(options.device))}

    def save() -> None:
        if options.out:
            write_json(options.out, found)

    found["parts"] = {}
    with torch.inference_mode():
        for name, run in parts(model, options.frames).items():
            sample = interleave({name: run}, repeats=options.rounds, warmup=2, device=options.device)[name]
            found["parts"][name] = sample.median
            print(f"{name:<28}{1e3 * sample.median:>9.3f} ms", flush=True)
            save()
    found["first token"] = {}
    for static in options.static:
        workload = from_preset(options.preset, model, options.frames, answer=1, static=static)
        rounds: dict[str, list[dict[str, float]]] = {text: [] for text in METHODS}
        rows: dict[str, float | None] = {}
        for turn in range(options.rounds + 1):
            for text in METHODS:
                run_ = measure(workload, parse(text))
                [video] = [video for prompt in run_.summary.prompts for video in prompt.videos]
                rows[text] = None if video.tower is None else video.tower.share
                if turn:  # the first round is to warm up
                    rounds[text].append(run_.seconds)
        entry = found["first token"][f"{static:g}"] = {"rounds": rounds, "rows": rows}
        save()
        for text in METHODS:
            stock = [each[FIRST] for each in entry["rounds"][METHODS[0]]]
            first = [each[FIRST] for each in rounds[text]]
            gain = statistics.median(a / b for a, b in zip(stock, first, strict=True))
            tower = statistics.median(each[TOWER] for each in rounds[text])
            share = "" if rows[text] is None else f", rows {rows[text]:.2f}"
            print(
                f"{static:g} static, {text:<32} first token {1e3 * statistics.median(first):>8.1f} ms ({gain:.2f}x), "
                f"tower {1e3 * tower:.1f} ms{share}",
                flush=True,
            )


if __name__ == "__main__":
    main()
