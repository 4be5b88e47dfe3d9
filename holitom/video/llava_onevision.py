"""LLaVA-OneVision's inputs, made without torchvision and equal to those of its processor in transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer

from holitom.video.chat import Conversation, ending, images, parts, videos, without_media
from holitom.video.checkpoint import CheckpointFiles
from holitom.video.clip import Clip
from holitom.video.pixels import PixelRecipe, shrunk
from holitom.video.prepare import Preprocessor, require_one_length


@dataclass(frozen=True, eq=False)
class LlavaOnevisionPreprocessor(Preprocessor):
    """Frames to pixel values, and a prompt in which each video stands as T * ceil(g / 2)^2 + 1 placeholders.

    The tower makes g x g patches of each of T frames, which the model pools to half the side; one newline ends a video.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        template: the chat template (Jinja).
        recipe: how frames become pixel values.
        patches: patches of one frame, g * g.
        image_settings: the image processor's settings.
        vision_aspect_ratio: how images are cut into tiles.
        video_token: the placeholder of a video.
        image_token: the placeholder of an image.
        frames: frames of a video that the checkpoint asks for.
    """

    tokenizer: Any
    template: str
    recipe: PixelRecipe
    patches: int
    image_settings: Mapping[str, Any]
    vision_aspect_ratio: str = "anyres_max_9"
    video_token: str = "<video>"
    image_token: str = "<image>"
    frames: int = 32
    model_type: str = "llava_onevision"

    @classmethod
    def from_files(cls, files: CheckpointFiles) -> LlavaOnevisionPreprocessor:
        """Read the tokenizer and the settings of a checkpoint; its weights are not needed."""
        tokenizer = AutoTokenizer.from_pretrained(files.name, **files.hub)
        template = files.chat_template() or tokenizer.chat_template
        if not isinstance(template, str):
            raise ValueError(
                f"{files.name} has no chat template: add chat_template.jinja, for example that of "
                "llava-hf/llava-onevision-qwen2-7b-ov-hf"
            )
        processor, config, video = files.processor(), files.config(), files.video_processor()
        strategy = processor.get("vision_feature_select_strategy", config.get("vision_feature_select_strategy", "full"))
        if strategy != "full":
            raise ValueError(f"vision_feature_select_strategy must be full for LLaVA-OneVision, got {strategy!r}")
        return cls(
            tokenizer=tokenizer,
            template=template,
            recipe=PixelRecipe.from_config(video),
            patches=_patches(files.name, processor, config),
            image_settings=files.image_processor(),
            vision_aspect_ratio=processor.get("vision_aspect_ratio", "anyres_max_9"),
            video_token=getattr(tokenizer, "video_token", None) or processor.get("video_token", "<video>"),
            image_token=getattr(tokenizer, "image_token", None) or processor.get("image_token", "<image>"),
            frames=int(video.get("num_frames") or 32),
        )

    def __post_init__(self) -> None:
        for token in (self.video_token, self.image_token):
            ids = self.tokenizer(token, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise ValueError(f"the tokenizer must know {token} as one token, it makes {len(ids)} of it")

    @property
    def grid(self) -> int:
        """Patches along one side of a frame, g."""
        return math.isqrt(self.patches)

    def video_tokens(self, frames: int) -> int:
        """Placeholders of a video of ``frames`` frames."""
        return frames * math.ceil(self.grid / 2) ** 2 + 1

    def batch(self, conversations: Sequence[Conversation]) -> dict[str, torch.Tensor]:
        """See :meth:`Preprocessor.batch`."""
        if not conversations:
            raise ValueError("conversations must not be empty")
        texts = [self._prompt(conversation) for conversation in conversations]
        rows = [self._ids(text) for text in texts]
        pad = self.tokenizer.pad_token_id
        inputs = pad_left(rows, self.tokenizer.eos_token_id or 0 if pad is None else pad)
        clips = [clip for conversation in conversations for clip in videos(conversation)]
        if clips:
            require_one_length(clips, self.model_type)
            inputs["pixel_values_videos"] = torch.stack([self.recipe(clip.frames) for clip in clips])
        pictures = [found for conversation in conversations if (found := images(conversation))]
        return {**inputs, **self._image_inputs(pictures)} if pictures else inputs

    def shrink(self, frame: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
        """See :meth:`Preprocessor.shrink`."""
        return frame if self.recipe.size is None else shrunk(frame, self.recipe.size, self.recipe.resample)

    def pixels(self, clip: Clip) -> dict[str, torch.Tensor]:
        """See :meth:`Preprocessor.pixels`."""
        return {"pixel_values_videos": self.recipe(clip.frames)[None]}

    def prompt(self, question: str, tokens: int) -> dict[str, torch.Tensor]:
        """See :meth:`Preprocessor.prompt`."""
        turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}
        self._refuse_placeholders(question)
        return pad_left([self._ids(_expanded(self._templated([turn]), self.video_token, [tokens]))], 0)

    def _ids(self, text: str) -> list[int]:
        bos = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
        return ids

    def _refuse_placeholders(self, text: str) -> None:
        for token in (self.video_token, self.image_token):
            if token in text:
                raise ValueError(f"the text holds {token}, which stands for media in a prompt: rephrase it")

    def _templated(self, messages: Sequence[Mapping[str, Any]]) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, **ending(messages)
        )
        return text

    def _prompt(self, conversation: Conversation) -> str:
        """The text of a conversation with every placeholder as often as its medium has tokens."""
        for part in parts(conversation):
            if part["type"] == "text":
                self._refuse_placeholders(part["text"])
        text = self._templated(without_media(conversation))
        text = _expanded(text, self.video_token, [self.video_tokens(len(clip)) for clip in videos(conversation)])
        return _expanded(text, self.image_token, self._image_tokens(images(conversation)))

    def _image_tokens(self, pictures: Sequence[Image.Image]) -> list[int]:
        if not pictures:
            return []
        size = self.image_settings.get("size") or {"height": 384}
        given = self.image_settings.get("image_grid_pinpoints")
        canvases = given or [(384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7)]
        anyres = AnyRes(
            grid=self.grid,
            tile=int(size.get("height") or size["shortest_edge"]),
            canvases=tuple((int(h), int(w)) for h, w in canvases),
            most_tiles=AnyRes.most_tiles_of(self.vision_aspect_ratio),
        )
        if len(pictures) > 1:
            return [self.grid**2 + 1] * len(pictures)  # among several, each is seen whole only, and a newline
        return [anyres.tokens(pictures[0].height, pictures[0].width)]

    def _image_inputs(self, pictures: list[list[Image.Image]]) -> dict[str, torch.Tensor]:
        # Pillow's resize, not torch's: transformers' own choice for images where torchvision is not installed.
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )

        settings = {
            k: v for k, v in self.image_settings.items() if k not in {"image_processor_type", "processor_class"}
        }
        return dict(LlavaOnevisionImageProcessorPil(**settings)(pictures, return_tensors="pt"))


def _patches(name: str, processor: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    patches = processor.get("num_image_tokens")
    if patches is None:
        vision = config.get("vision_config", {})
        if "image_size" not in vision or "patch_size" not in vision:
            raise ValueError(
                f"{name} does not say how many patches a frame has: add num_image_tokens to its processor_config.json"
            )
        patches = (int(vision["image_size"]) // int(vision["patch_size"])) ** 2
    return int(patches)


def _expanded(text: str, token: str, counts: Sequence[int]) -> str:
    """``text`` with its n-th ``token`` repeated ``counts[n]`` times."""
    pieces = text.split(token)
    if len(pieces) != len(counts) + 1:
        raise ValueError(
            f"the chat template makes {len(pieces) - 1} {token} of {len(counts)} in the conversation: "
            "it does not support these media"
        )
    return pieces[0] + "".join(token * count + piece for count, piece in zip(counts, pieces[1:], strict=True))


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Token ids of unequal length as ``input_ids`` and ``attention_mask``, (B, L) int64."""
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows], device="cpu"),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device="cpu"),
    }


@dataclass(frozen=True)
class AnyRes:
    """LLaVA-OneVision's "anyres": an image is seen whole and in tiles (LLaVA-OneVision, section 3.2).

    Attributes:
        grid: patches along one side of a tile, g.
        tile: pixels along one side of a tile.
        canvases: (height, width) in pixels that tiles may make up.
        most_tiles: features of more tiles than this are shrunk to as many ("anyres_max_9": 9).
    """

    grid: int
    tile: int
    canvases: tuple[tuple[int, int], ...]
    most_tiles: int

    def __post_init__(self) -> None:
        if min(self.grid, self.tile, self.most_tiles) < 1:
            raise ValueError(f"grid, tile and most_tiles must be at least 1, got {self}")
        if not self.canvases:
            raise ValueError("canvases must name at least one (height, width)")

    @staticmethod
    def most_tiles_of(vision_aspect_ratio: str) -> int:
        """The number in ``anyres_max_9``."""
        name, _, number = vision_aspect_ratio.rpartition("_")
        if name != "anyres_max" or not number.isdecimal():
            raise ValueError(f"vision_aspect_ratio must be anyres_max_N, got {vision_aspect_ratio!r}")
        return int(number)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """The canvas that keeps most of the image's pixels, and of those the one with the least empty area."""

        def quality(canvas: Sequence[int]) -> tuple[int, int]:
            scale = min(canvas[1] / width, canvas[0] / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            return used, used - canvas[0] * canvas[1]

        return max(self.canvases, key=quality)

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a lone image of ``height`` x ``width`` pixels: whole, then its tiles in rows ended by newlines."""
        canvas_height, canvas_width = self.canvas(height, width)
        rows = self.grid * (canvas_height // self.tile)
        columns = self.grid * (canvas_width // self.tile)
        # The tiles show the image centred on the canvas; patches of the border are taken off, the same on both sides.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        shrink = math.sqrt(rows * columns / (self.most_tiles * self.grid**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return self.grid**2 + rows * columns + rows
