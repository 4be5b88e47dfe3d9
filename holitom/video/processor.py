"""Inputs for any other family, made by its own processor from transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from holitom.video.chat import Conversation, images, videos, without_media
from holitom.video.checkpoint import CheckpointFiles
from holitom.video.clip import Clip
from holitom.video.prepare import Preprocessor


@dataclass(frozen=True, eq=False)
class ProcessorPreprocessor(Preprocessor):
    """Hands frames, as they were sampled, and where they come from to a processor.

    Attributes:
        processor: from ``AutoProcessor``.
        model_type: the family, as ``config.json`` names it.
        frames: frames of a video that the checkpoint asks for.
    """

    processor: Any
    model_type: str
    frames: int = 32

    @classmethod
    def from_files(cls, files: CheckpointFiles, model_type: str) -> ProcessorPreprocessor:
        """Load the processor.

        Raises:
            ImportError: it needs torchvision, and that is missing or does not fit the installed torch.
        """
        try:
            from transformers import AutoProcessor

            processor = AutoProcessor.from_pretrained(files.name, **files.hub)
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                f"the processor of {model_type or files.name} cannot be loaded: the video processors of transformers "
                f"need a torchvision built for the installed torch {torch.__version__}. Install it with "
                "`pip install torchvision` from where torch came. (LLaVA-OneVision models do not need it.)"
            ) from error
        if getattr(processor, "video_processor", None) is None and not hasattr(processor, "image_processor"):
            raise ValueError(f"{files.name} ({model_type or 'unknown family'}) takes no videos: give a video model")
        number = getattr(getattr(processor, "video_processor", None), "num_frames", None)
        return cls(processor, model_type, int(number or 32))

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return self.processor.tokenizer

    def batch(self, conversations: Sequence[Conversation]) -> dict[str, torch.Tensor]:
        """See :meth:`Preprocessor.batch`."""
        if not conversations:
            raise ValueError("conversations must not be empty")
        texts = [
            self.processor.apply_chat_template(without_media(conversation), add_generation_prompt=True, tokenize=False)
            for conversation in conversations
        ]
        clips = [clip for conversation in conversations for clip in videos(conversation)]
        pictures = [images(conversation) for conversation in conversations]
        media: dict[str, Any] = {}
        if clips:
            media["videos"] = [clip.frames for clip in clips]
            media["video_metadata"] = [metadata_of(clip) for clip in clips]
            media["do_sample_frames"] = False  # the frames are sampled already
        if any(pictures):
            media["images"] = pictures
        bos = self.tokenizer.bos_token
        return dict(
            self.processor(
                text=texts,
                **media,
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=not (bos and texts[0].startswith(bos)),
            )
        )


def metadata_of(clip: Clip) -> dict[str, Any]:
    """What processors want to know about a video, in transformers' names."""
    return {
        "total_num_frames": clip.total_frames,
        "fps": clip.fps,
        "duration": clip.duration,
        "frames_indices": clip.indexes.tolist(),
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "video_backend": "pyav",
    }
