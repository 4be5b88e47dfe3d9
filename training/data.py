"""Training data: pixels, dense labels for each pooled cell, and tokenised questions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from holitom.video.synthetic import FRAMES, Question
from holitom.video.synthetic.scene import MAX_COUNT, STILL, Scenes
from holitom.video.synthetic.suite import Block

from .build import CELLS, GRID

CELL = 16
MIN_PIXELS = 24
"""A cell belongs to the object that covers most of it, if that is at least this many of its 256 pixels."""
SLOT_LENGTH = 17
"""Tokens of a question with its answer, padded."""


def chroma_subsample(frames: torch.Tensor) -> torch.Tensor:
    """Average the chroma of RGB frames (..., H, W, 3) over 2 x 2 pixels, as a 4:2:0 video does."""
    weights = frames.new_tensor([0.299, 0.587, 0.114])
    luma = (frames * weights).sum(-1, keepdim=True)
    chroma = (frames - luma).flatten(0, -4).permute(0, 3, 1, 2)
    chroma = torch.nn.functional.avg_pool2d(chroma, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    # Averaging keeps the weighted sum of the differences at zero only in smooth areas; the codec clips there as well.
    return (luma + chroma.permute(0, 2, 3, 1).reshape(frames.shape)).clamp(0, 255)


def to_pixels(frames: NDArray[np.uint8], degrade: bool) -> torch.Tensor:
    """Turn frames (N, H, W, 3) into the pixel values (N, 3, H, W) that the processor makes, in -1..1.

    ``degrade`` adds the chroma subsampling and rounding of a compressed video first.
    """
    pixels = torch.from_numpy(frames).float()
    if degrade:
        pixels = chroma_subsample(pixels).round()
    return (pixels / 127.5 - 1.0).permute(0, 3, 1, 2)


def cell_owner(owner: NDArray[np.int8]) -> NDArray[np.int8]:
    """Reduce pixel owners (B, T, H, W) to the owner of each pooled cell (B, T, CELLS), -1 for background."""
    b, t = owner.shape[:2]
    cells = owner.reshape(b, t, GRID, CELL, GRID, CELL).swapaxes(3, 4).reshape(b, t, CELLS, CELL * CELL)
    covered = np.stack([(cells == slot).sum(-1) for slot in range(MAX_COUNT + 1)], -1)
    best = covered.argmax(-1)
    return np.where(covered.max(-1) >= MIN_PIXELS, best, -1).astype(np.int8)


def gather_slot(values: NDArray, owners: NDArray[np.int8]) -> NDArray:
    """Look up a per-object attribute (B, S) for the owners (B, T, CELLS); background gets that of slot 0."""
    return values[np.arange(len(values))[:, None, None], np.maximum(owners, 0)]


def dense_targets(scenes: Scenes, owners: NDArray[np.int8]) -> dict[str, NDArray[np.int64]]:
    """Labels of every visual token (B, T * CELLS) for the auxiliary losses of stage 2; -100 where undefined."""
    b = len(scenes)
    frame = np.arange(FRAMES)[None, :, None]
    lasting = (owners >= 0) & (owners < MAX_COUNT)
    index = np.arange(b)[:, None, None], np.maximum(owners, 0), np.broadcast_to(frame, owners.shape)
    now = scenes.centre[index]
    first = scenes.centre[np.arange(b)[:, None], np.arange(MAX_COUNT + 1), scenes.appears]
    start = first[index[0], index[1]]
    appears = gather_slot(scenes.appears, owners)
    age = frame - appears
    moved = np.abs(now - start).max(-1)
    heading = np.where(moved > 9.0, gather_slot(scenes.heading, owners), STILL)
    seen = (scenes.visible[:, :MAX_COUNT].sum(1))[:, :, None]
    cell = np.clip(start / CELL, 0, GRID - 1).astype(np.int64)
    targets = {
        "heading": np.where(lasting & (age >= 3), heading, -100),
        "start_x": np.where(lasting, cell[..., 0], -100),
        "start_y": np.where(lasting, cell[..., 1], -100),
        "age": np.where(owners >= 0, np.minimum(age, 4), -100),
        "appears": np.where(owners >= 0, appears, -100),
        "seen": np.broadcast_to(seen, owners.shape),
        "scene": np.broadcast_to(scenes.scene[:, :, None], owners.shape),
    }
    return {name: value.reshape(b, -1).astype(np.int64) for name, value in targets.items()}


DENSE_CLASSES = {"heading": 5, "start_x": GRID, "start_y": GRID, "age": 5, "appears": FRAMES, "seen": 6, "scene": 3}


def tokenise(tokenizer, questions: list[Question], cache: dict[str, list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenise questions with their answers.

    Returns ids and labels (Q, SLOT_LENGTH); labels are shifted: the label of a position is the token that follows.
    """
    ids = torch.zeros(len(questions), SLOT_LENGTH, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, question in enumerate(questions):
        text = f"{question.text}<|im_end|>\n<|im_start|>assistant\n"
        prompt = cache.get(text)
        if prompt is None:
            prompt = cache[text] = tokenizer(text)["input_ids"]
        answer = [tokenizer.convert_tokens_to_ids(question.answer), tokenizer.eos_token_id]
        full = prompt + answer
        if len(full) > SLOT_LENGTH:
            raise ValueError(f"{question.text!r} takes {len(full)} tokens; raise SLOT_LENGTH above {SLOT_LENGTH}")
        ids[row, : len(full)] = torch.tensor(full)
        labels[row, len(prompt) - 1 : len(full) - 1] = torch.tensor(answer)
    return ids, labels


def frame_labels(block: Block, owners: NDArray[np.int8], picks: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """Labels of stage 1 for the frames ``picks`` (B, F): (B * F, CELLS) each, offsets and RGB with channels last."""
    b, f = picks.shape
    rows = np.arange(b)[:, None]
    own = owners[rows, picks]  # (B, F, CELLS)
    there = own >= 0
    kinds = {
        name: np.where(there, gather_slot(getattr(block.scenes, name), own) + 1, 0) for name in ("shape", "colour")
    }
    centre = block.scenes.centre[rows[..., None], np.maximum(own, 0), picks[..., None]]
    grid = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(CELLS, 2)
    offset = centre / CELL - grid - 0.5
    frames = block.frames[rows, picks].reshape(b * f, GRID, CELL, GRID, CELL, 3).mean((2, 4)).reshape(b * f, CELLS, 3)
    out = {name: torch.from_numpy(value.reshape(b * f, CELLS)) for name, value in kinds.items()}
    out["there"] = torch.from_numpy(there.reshape(b * f, CELLS))
    out["offset"] = torch.from_numpy(offset.reshape(b * f, CELLS, 2)).float()
    out["rgb"] = torch.from_numpy(frames).float() / 127.5 - 1.0
    return out
