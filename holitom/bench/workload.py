"""What is measured: a model, the inputs of one prompt in a batch, and how long the answer is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from holitom.bench import pixels
from holitom.bench.presets import preset
from holitom.cost import ModelShape, vision_flops
from holitom.generation import on_device_of, pixels_of
from holitom.models import adapter_for
from holitom.models.placement import input_device
from holitom.pipeline import Pipeline
from holitom.runtime import question_ids
from holitom.video.chat import user_turn
from holitom.video.clip import Clip

WORD = 20  # any ordinary token of a preset


@dataclass(frozen=True, eq=False)
class Workload:
    """A batch of prompts about videos, and the model that reads them.

    Args:
        model: a transformers video LLM of a supported family.
        inputs: for ``generate()``: ids (B, L), mask and pixels, on the model's device.
        frames: of each video.
        batch: B, rows with a video of their own each.
        answer: tokens to generate, at least 1.
        patch_grid: patches (rows, columns) of a frame, where known; for the FLOPs of the vision tower.
        question: for each row the ids of its question, for methods that look at it.
    """

    model: Any
    inputs: dict[str, torch.Tensor]
    frames: int
    batch: int
    answer: int
    patch_grid: tuple[int, int] | None = None
    question: list[list[int]] | None = None
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        if self.answer < 1 or self.batch < 1 or self.frames < 1:
            raise ValueError(
                f"answer, batch and frames must be at least 1, got {self.answer}, {self.batch} and {self.frames}"
            )
        adapter_for(self.model)
        object.__setattr__(self, "device", input_device(self.model))

    @property
    def prompt(self) -> int:
        """Tokens of one row, visual ones included."""
        return self.inputs["input_ids"].shape[1]

    @property
    def pixels(self) -> dict[str, torch.Tensor]:
        """The arguments of the encoder among the inputs."""
        return pixels_of(self.model, self.inputs)

    @property
    def vision_flops(self) -> int | None:
        """FLOPs of encoding the batch's videos; None where they are not known."""
        try:
            shape = ModelShape.from_config(self.model.config)
            return self.batch * vision_flops(shape, self.frames, self.patch_grid).total
        except (TypeError, ValueError):
            return None


def from_preset(
    name: str,
    model: Any,
    frames: int,
    batch: int = 1,
    text: int = 40,
    answer: int = 32,
    static: float = 0.0,
    longer: int = 0,
) -> Workload:
    """The workload of a preset: ids are made up, with the placeholders where the family's processor would put them.

    Args:
        name: of the preset.
        model: built by :func:`holitom.bench.presets.build`.
        frames: of each video.
        batch: number of prompts, each with its own video.
        text: tokens of a prompt beside the video and what encloses it.
        answer: tokens to generate.
        static: the share of the picture that never changes.
        longer: tokens of text by which each row is longer than the one before it.
    """
    if text < 1:
        raise ValueError(f"text must be at least 1 token, got {text}")
    side = preset(name).side
    videos = [pixels.frames(frames, side, seed, static=static) for seed in range(batch)]
    config, vision = model.config, model.config.vision_config
    token = adapter_for(model).video_token_id
    before, after = [WORD] * min(14, text // 2), [WORD] * (text - min(14, text // 2))
    grid: tuple[int, int] | None
    if config.model_type == "llava_onevision":
        pooled = -(-(vision.image_size // vision.patch_size) // 2)
        placeholders = [token] * (frames * pooled**2 + 1)
        media = {"pixel_values_videos": torch.stack(videos)}
        grid = None
    else:
        packed = [pixels.patches(video, vision.patch_size) for video in videos]
        steps, *rows_columns = packed[0][1]
        grid = (rows_columns[0], rows_columns[1])
        patches = [token] * (grid[0] * grid[1] // 4)
        start, end = [config.vision_start_token_id], [config.vision_end_token_id]
        if config.model_type == "qwen3_vl":  # a time in words stands before every step
            placeholders = [id_ for _ in range(steps) for id_ in [*[WORD] * 6, *start, *patches, *end]]
        else:
            placeholders = [*start, *patches * steps, *end]
        media = {
            "pixel_values_videos": torch.cat([values for values, _ in packed]),
            "video_grid_thw": torch.tensor([grid for _, grid in packed], device="cpu"),
        }
    questions = [after + [WORD] * (longer * row) for row in range(batch)]
    rows = [torch.tensor([*before, *placeholders, *question], device="cpu") for question in questions]
    ids = pad_sequence(rows, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    inputs = {"input_ids": ids, "attention_mask": mask, **media}
    if config.model_type != "llava_onevision":
        inputs["mm_token_type_ids"] = (ids == token).long() * 2
    return Workload(model, on_device_of(model, inputs), frames, batch, answer, grid, questions)


def from_pipeline(
    pipeline: Pipeline,
    frames: int,
    batch: int = 1,
    text: int = 40,
    answer: int = 32,
    static: float = 0.0,
    longer: int = 0,
) -> Workload:
    """The workload of a checkpoint: synthetic clips through its own preprocessor, a question of about ``text`` tokens.

    Args:
        pipeline: model and preprocessor.
        frames: of each video.
        batch: number of prompts, each with its own video.
        text: tokens of the question.
        answer: tokens to generate.
        static: the share of the picture that never changes.
        longer: tokens of text, at least, by which each row is longer than the one before it.
    """
    tokenizer, model = pipeline.preprocessor.tokenizer, pipeline.model
    question, questions, turns = "What happens in the video?", list[str](), []
    for seed in range(batch):
        video = pixels.frames(frames, 384, seed, static=static)
        array = ((video.permute(0, 2, 3, 1) + 1) * 127.5).clamp_(0, 255).byte().numpy()
        while len(tokenizer(question)["input_ids"]) < text + longer * seed:
            question += " And then?"
        questions.append(question)
        turns.append([user_turn(question, Clip.from_frames(array))])
    inputs = pipeline.preprocessor.batch(turns)
    grids = inputs.get("video_grid_thw")
    grid = None if grids is None else (int(grids[0, 1]), int(grids[0, 2]))
    asked = question_ids(tokenizer, inputs["input_ids"], questions)
    return Workload(model, on_device_of(model, inputs), frames, batch, answer, grid, asked)
