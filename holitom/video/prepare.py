"""From clips and questions to the inputs of a model."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holitom.video.chat import Conversation, Media, user_turn
from holitom.video.checkpoint import CheckpointFiles
from holitom.video.clip import Clip
from holitom.video.sampling import FrameRate

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Preprocessor(ABC):
    """Turns conversations about clips and images into a model's inputs.

    >>> preprocessor = Preprocessor.from_pretrained("llava-hf/llava-onevision-qwen2-7b-ov-hf")
    >>> clip = read_video("film.mp4", preprocessor.frames, size=preprocessor.shrink)
    >>> inputs = preprocessor("What happens?", clip)
    >>> ids = model.generate(**to_device(inputs, model.device, model.dtype), max_new_tokens=64)
    >>> preprocessor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    Attributes:
        model_type: the family, as ``config.json`` names it.
        frames: frames of a video that the checkpoint asks for, 32 where it does not say; for Qwen's families a
            :class:`holitom.video.FrameRate`.
        tokenizer: the checkpoint's tokenizer.
    """

    model_type: str
    frames: int | FrameRate = 32
    tokenizer: Any

    @staticmethod
    def from_pretrained(name: str | Path, **hub: Any) -> Preprocessor:
        """The preprocessor of a checkpoint.

        LLaVA-OneVision is prepared here, without torchvision; every other family by its own processor from
        transformers, which needs it.

        A torchvision that does not fit the installed torch is treated as missing, for the rest of the process.

        Args:
            name: path of a folder, or a hub id.
            hub: revision, token, cache_dir, local_files_only, as in transformers.

        Raises:
            ValueError: the folder holds no checkpoint, or one with settings that are not understood.
            ImportError: the family needs torchvision and it is missing or broken.
            OSError: the hub cannot be reached or has no such repository.
        """
        from holitom.video.llava_onevision import LlavaOnevisionPreprocessor
        from holitom.video.processor import ProcessorPreprocessor
        from holitom.video.torchvision import hide_broken_torchvision

        hide_broken_torchvision()
        files = CheckpointFiles(name, **hub)
        model_type = str(files.config().get("model_type", ""))
        if model_type == "llava_onevision":
            return LlavaOnevisionPreprocessor.from_files(files)
        return ProcessorPreprocessor.from_files(files, model_type)

    def __call__(self, question: str, *media: Media) -> dict[str, torch.Tensor]:
        """The inputs for one question. See :meth:`batch`.

        Args:
            question: what is asked.
            media: the clips and images that it is about, in their order; there may be none.
        """
        return self.batch([[user_turn(question, *media)]])

    @abstractmethod
    def batch(self, conversations: Sequence[Conversation]) -> dict[str, torch.Tensor]:
        """The inputs for several conversations at once, each ending before the model's answer.

        A last message of the role "assistant" is the beginning of that answer, which goes on from there.

        Args:
            conversations: each a list of messages, see :mod:`holitom.video.chat`.

        Returns:
            ``input_ids`` and ``attention_mask``, (B, L) int64, padded on the left; the media's tensors by the names of
            the family, for LLaVA-OneVision ``pixel_values_videos`` (V, T, 3, h, w) float32 for the V videos of all
            conversations in order, and ``pixel_values``, ``image_sizes`` and ``batch_num_images`` for images.
        """

    def shrink(self, frame: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
        """A frame as small as preprocessing would make it, or as it is where that is not known.

        The inputs are the same to the bit, whether frames are made small before or by preprocessing. For ``size=`` of
        :func:`holitom.video.read_video`.

        Args:
            frame: (H, W, 3).
            frames: T, frames of the video that will be prepared.

        Returns:
            (h, w, 3).
        """
        return frame

    def pixels(self, clip: Clip) -> dict[str, torch.Tensor]:
        """The arguments of ``get_video_features`` for a part of a video; see :meth:`batch` for their shapes."""
        raise TypeError(f"videos of {self.model_type or 'this family'} cannot be prepared in parts")

    def prompt(self, question: str, tokens: int) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` (1, L) of a question about a video that stands as so many tokens."""
        raise TypeError(f"prompts of {self.model_type or 'this family'} hold more of a video than its tokens")


def to_device(
    inputs: Mapping[str, torch.Tensor], device: torch.device | str, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Inputs where a model is.

    Args:
        inputs: as :meth:`Preprocessor.batch` gives them.
        device: where to.
        dtype: of pixel values, and of all else of floating point that is more than a number for each video (seconds
            between frames, from which positions are counted); None: as it is.
    """
    return {
        name: value.to(device, dtype if value.is_floating_point() and value.dim() > 1 else None)
        for name, value in inputs.items()
    }


def require_one_length(clips: Sequence[Clip], model_type: str) -> None:
    """Refuses videos that cannot lie in one tensor.

    Raises:
        ValueError: when the clips differ in their number of frames.
    """
    lengths = sorted({len(clip) for clip in clips})
    if len(lengths) > 1:
        raise ValueError(
            f"the videos of one batch must have the same number of frames for {model_type}, got {lengths}: "
            f"read them with frames={lengths[0]}, or prepare them one by one"
        )
