"""Stage 1: the tower and the projector learn from dense labels on single frames."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration

from holitom.video.synthetic import COLOURS, FRAMES, SHAPES
from holitom.video.synthetic.suite import block

from .build import CELLS, GRID, build_model
from .checkpoint import Checkpoint
from .data import cell_owner, frame_labels, to_pixels
from .optim import Schedule, build_optimisers

FRAMES_PER_CLIP = 8
STAGE1_SEED = 1
SAVE_EVERY = 120.0
"""Seconds between checkpoints."""


def encode(model: LlavaOnevisionForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Encode frames (N, 3, H, W) to pooled visual tokens (N, CELLS, D), as the model's get_video_features does.

    The features are taken before the tower's last norm, as transformers takes hidden_states[-1].
    """
    inner = model.model
    tower = inner.vision_tower
    hidden = tower.embeddings(pixels)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, attention_mask=None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return inner.apply_pooling(inner.multi_modal_projector(hidden))


class DenseHeads(nn.Module):
    """Linear read-outs of stage 1; they are thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = {
            "shape": len(SHAPES) + 1,
            "colour": len(COLOURS) + 1,
            "offset": 2,
            "row": GRID,
            "column": GRID,
            "rgb": 3,
        }
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        for head in self.heads.values():
            nn.init.normal_(head.weight, std=width**-0.5)
            nn.init.zeros_(head.bias)

    def loss(self, tokens: torch.Tensor, labels: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and scores for tokens (N, CELLS, D)."""
        out = {name: head(tokens).flatten(0, 1) for name, head in self.heads.items()}
        there = labels["there"].flatten()
        loss = tokens.new_zeros(())
        scores = {}
        for name in ("shape", "colour"):
            weight = torch.ones(out[name].shape[-1], device=tokens.device)
            weight[0] = 0.25
            target = labels[name].flatten()
            loss = loss + (2.0 if name == "shape" else 1.0) * F.cross_entropy(out[name], target, weight=weight)
            scores[name] = (out[name].argmax(-1) == target)[there].float().mean().item()
            scores[f"{name}_background"] = (out[name].argmax(-1) == target)[~there].float().mean().item()
        n = len(tokens)
        cells = torch.arange(CELLS, device=tokens.device).repeat(n)
        loss = (
            loss + 0.2 * F.cross_entropy(out["row"], cells // GRID) + 0.2 * F.cross_entropy(out["column"], cells % GRID)
        )
        loss = loss + F.smooth_l1_loss(out["offset"][there], labels["offset"].flatten(0, 1)[there])
        loss = loss + F.mse_loss(out["rgb"], labels["rgb"].flatten(0, 1))
        return loss, scores


def batches(start: int, batch: int):
    """Yield (next block, pixels, labels) from block ``start`` on: FRAMES_PER_CLIP frames a clip, in batches."""
    number = start
    while True:
        drawn = block("train", number, STAGE1_SEED, with_owner=True)
        rng = np.random.default_rng([STAGE1_SEED, number])
        # A flash lasts one or two frames: one pick of each clip goes there, one to the fullest frame.
        picks = rng.integers(0, FRAMES, (len(drawn.frames), FRAMES_PER_CLIP))
        picks[:, 0] = np.where(drawn.scenes.flashes, drawn.scenes.appears[:, -1], picks[:, 0])
        picks[:, 1] = FRAMES - 1
        labels = frame_labels(drawn, cell_owner(drawn.owner), picks)
        frames = drawn.frames[np.arange(len(picks))[:, None], picks].reshape(-1, *drawn.frames.shape[2:])
        pixels = to_pixels(frames, degrade=bool(number % 2))
        order = torch.from_numpy(rng.permutation(len(pixels)))
        for rows in order.split(batch):
            yield number + 1, pixels[rows], {name: value[rows] for name, value in labels.items()}
        number += 1


def train(out: Path, steps: int, minutes: float | None, batch: int, lr: float, device: str) -> None:
    """Train stage 1; resumes from ``out``/stage1.pt."""
    out.mkdir(parents=True, exist_ok=True)
    model = build_model().to(device)
    heads = DenseHeads(model.config.text_config.hidden_size).to(device)
    parts = [model.model.vision_tower, model.model.multi_modal_projector, heads]
    optimisers = build_optimisers(parts, [], lr)
    schedule = Schedule(steps, lr, minutes)
    checkpoint = Checkpoint(out / "stage1.pt", parts, optimisers)
    state = checkpoint.load(schedule, device) or {"step": 0, "number": 0, "done": False}
    step, number = state["step"], state["number"]
    trained = [p for part in parts for p in part.parameters()]
    stream, last_save = batches(number, batch), time.monotonic()
    with (out / "stage1.jsonl").open("a") as log:
        while not state["done"]:
            progress, rate = schedule.set(optimisers, step)
            done = progress >= 1.0
            if done or time.monotonic() - last_save > SAVE_EVERY:
                checkpoint.save(schedule, step=step, number=number, done=done)
                last_save = time.monotonic()
            if done:
                break
            number, pixels, labels = next(stream)
            labels = {name: value.to(device) for name, value in labels.items()}
            loss, scores = heads.loss(encode(model, pixels.to(device)), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if step % 20 == 0:
                row = {"step": step, "seconds": round(schedule.elapsed(), 1), "progress": progress, "lr": rate}
                log.write(json.dumps({**row, "loss": loss.item(), **scores}) + "\n")
                log.flush()
            step += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--device", default="cpu")
    train(**vars(parser.parse_args()))
