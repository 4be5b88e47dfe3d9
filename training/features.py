"""Between the stages: freeze the tower and cache the visual tokens of the training and validation clips."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from holitom.video.synthetic.suite import BLOCK, block

from .build import CELLS, build_model
from .data import cell_owner, to_pixels
from .vision import encode

STAGE2_SEED = 2


def load_vision(out: Path, device: str = "cpu") -> LlavaOnevisionForConditionalGeneration:
    """Build the model with the tower and projector of stage 1, frozen and rounded to the bfloat16 that is published."""
    model = build_model().to(device)
    state = torch.load(out / "stage1.pt", weights_only=True, map_location=device)
    for part, weights in zip(
        (model.model.vision_tower, model.model.multi_modal_projector), state["parts"], strict=False
    ):
        part.load_state_dict(weights)
        for parameter in part.parameters():
            parameter.requires_grad_(False)
            parameter.copy_(parameter.to(torch.bfloat16))
    return model


def open_cache(out: Path, split: str, clips: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Open the memory-mapped features (N, T * CELLS, D) float16 and cell owners (N, T, CELLS) int8."""
    folder = out / "features"
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"features": ((clips, 16 * CELLS, 128), "float16"), "owners": ((clips, 16, CELLS), "int8")}
    opened = [
        np.lib.format.open_memmap(folder / f"{split}-{name}.npy", mode=mode, dtype=dtype, shape=shape)
        if mode == "w+"
        else np.load(folder / f"{split}-{name}.npy", mmap_mode=mode)
        for name, (shape, dtype) in shapes.items()
    ]
    return opened[0], opened[1]


@torch.no_grad()
def cache(out: Path, split: str, clips: int, device: str = "cpu") -> None:
    """Encode the first ``clips`` clips of a split; goes on where an interrupted run stopped."""
    model = load_vision(out, device)
    done_file = out / "features" / f"{split}.done"
    done = int(done_file.read_text()) if done_file.exists() else 0
    features, owners = open_cache(out, split, clips, "r+" if done else "w+")
    if len(features) != clips:
        raise ValueError(
            f"the cache holds {len(features)} clips, not {clips}; delete {out / 'features'} to make another"
        )
    for number in range(done, clips // BLOCK):
        drawn = block(split, number, STAGE2_SEED, with_owner=True)
        rows = slice(number * BLOCK, (number + 1) * BLOCK)
        owners[rows] = cell_owner(drawn.owner)
        pixels = to_pixels(drawn.frames.reshape(-1, *drawn.frames.shape[2:]), degrade=bool(number % 2))
        tokens = torch.cat([encode(model, part.to(device)).cpu() for part in pixels.split(64)])
        features[rows] = tokens.reshape(BLOCK, -1, tokens.shape[-1]).to(torch.float16).numpy()
        done_file.write_text(str(number + 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--clips", type=int, default=8192)
    parser.add_argument("--val", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    cache(options.out, "val", options.val, options.device)
    cache(options.out, "train", options.clips, options.device)
