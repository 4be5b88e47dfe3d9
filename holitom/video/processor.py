"""Inputs for any other family, made by its own processor from transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holitom.video.chat import Conversation, ending, images, videos, without_media
from holitom.video.checkpoint import CheckpointFiles
from holitom.video.clip import Clip
from holitom.video.pixels import RESAMPLING, shrunk
from holitom.video.prepare import Preprocessor, require_one_length
from holitom.video.sampling import FrameRate
from holitom.video.torchvision import is_torchvision_hidden

STACKED = {"internvl", "llava_next_video", "smolvlm", "video_llava"}  # all videos of a call in one tensor, by frames
RATE = {"fps": "fps", "least": "min_frames", "most": "max_frames"}  # FrameRate's names and transformers'
TICKS = 1e6  # per second: what places of frames count where frame numbers do not give the times


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
    frames: int | FrameRate = 32

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
            failed = f"the processor of {model_type or files.name} cannot be loaded: "
            if find_spec("torchvision") is not None:
                raise ImportError(failed + " ".join(str(error).split())) from error
            built = "the installed one was built for another torch" if is_torchvision_hidden() else "none is installed"
            raise ImportError(
                f"{failed}the video processors of transformers need a torchvision built for the installed torch "
                f"{torch.__version__}, and {built}. Install it with `pip install --force-reinstall --no-deps "
                "torchvision` from where torch came. (LLaVA-OneVision models do not need it.)"
            ) from error
        if getattr(processor, "video_processor", None) is None and not hasattr(processor, "image_processor"):
            raise ValueError(f"{files.name} ({model_type or 'unknown family'}) takes no videos: give a video model")
        video = getattr(processor, "video_processor", None)
        number = getattr(video, "num_frames", None)
        if number is None and model_type.startswith("qwen"):
            given = {to: getattr(video, name, None) for to, name in RATE.items()}
            return cls(processor, model_type, FrameRate(**{to: value for to, value in given.items() if value}))
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
            self.processor.apply_chat_template(without_media(conversation), tokenize=False, **ending(conversation))
            for conversation in conversations
        ]
        clips = [clip for conversation in conversations for clip in videos(conversation)]
        pictures = [images(conversation) for conversation in conversations]
        media: dict[str, Any] = {}
        if clips:
            if self.model_type in STACKED:
                require_one_length(clips, self.model_type)
            media["videos"] = [self._frames(clip) for clip in clips]
            media["video_metadata"] = [metadata_of(clip) for clip in clips]
            media["do_sample_frames"] = False  # the frames are sampled already
        if any(pictures):
            media["images"] = pictures
        bos = self.tokenizer.bos_token
        inputs = dict(
            self.processor(
                text=texts,
                **media,
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=not (bos and texts[0].startswith(bos)),
            )
        )
        if "video_second_per_grid" in inputs:  # Qwen-Omni's processors take the usual rate for that of every video
            paired = self.processor.video_processor.temporal_patch_size
            seconds = [paired * clip.duration / len(clip) for clip in clips]
            inputs["video_second_per_grid"] = torch.tensor(seconds, dtype=torch.float32, device="cpu")
        return inputs

    def shrink(self, frame: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
        """See :meth:`Preprocessor.shrink`; for the families whose size depends on that of the video."""
        video = getattr(self.processor, "video_processor", None)
        resample = RESAMPLING.get(getattr(video, "resample", None) or 0)
        limits = getattr(self.processor, "videos_kwargs", {}).get("size") or getattr(video, "size", None)
        frames = max(frames, getattr(video, "temporal_patch_size", None) or 1)
        size = _resized(video, limits, frames, *frame.shape[:2])
        return frame if size is None or resample is None else shrunk(frame, size, resample)

    def _frames(self, clip: Clip) -> NDArray[np.uint8]:
        """The last frame repeated, as transformers fills patches in time, where a single one would be refused."""
        video_processor = getattr(self.processor, "video_processor", None)
        missing = (getattr(video_processor, "temporal_patch_size", None) or 1) - len(clip)
        return np.concatenate([clip.frames, clip.frames[-1:].repeat(missing, 0)]) if missing > 0 else clip.frames


def _resized(video: Any, limits: Any, frames: int, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) to which a processor brings frames, as its own ``resize`` says; None where that is unclear.

    Args:
        video: the video processor.
        limits: ``size`` as it is called with.
        frames: of the video.
        height: of a frame.
        width: of a frame.
    """
    patch, merge = getattr(video, "patch_size", None), getattr(video, "merge_size", None)
    if not (patch and merge and getattr(video, "do_resize", False)):
        return None
    from transformers.image_utils import SizeDict

    options = {
        "size": SizeDict(**{name: value for name, value in dict(limits).items() if value is not None}),
        "resample": video.resample,
        "factor": patch * merge,
        "temporal_factor": video.temporal_patch_size,
        "cap_pixels_per_frame": getattr(video, "cap_pixels_per_frame", None),
    }

    def once(height: int, width: int) -> tuple[int, int]:
        # On the device "meta", shapes are computed and nothing else.
        frame = torch.empty((1, frames, 3, height, width), dtype=torch.uint8, device="meta")
        found = video.resize(frame, **options).shape[-2:]
        return int(found[0]), int(found[1])

    try:
        size = once(height, width)
        return size if once(*size) == size else None  # frames that would be resized once more are left alone
    except ValueError:  # said when the video is prepared
        return None


def metadata_of(clip: Clip) -> dict[str, Any]:
    """What processors want to know about a video, in transformers' names.

    They take a frame's place divided by ``fps`` for its time, and some cut that to whole seconds. Where it is not the
    time of the frame, exactly, places and ``fps`` therefore count microseconds instead of frames.
    """
    fps, places, total = clip.fps, clip.indexes, clip.total_frames
    if not np.array_equal(places / fps, clip.times):
        fps, places = TICKS, np.rint(clip.times * TICKS).astype(np.int64)
        total = max(round(clip.duration * TICKS), int(places[-1]) + 1)
    return {
        "total_num_frames": total,
        "fps": fps,
        "duration": clip.duration,
        "frames_indices": places.tolist(),
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "video_backend": "pyav",
    }
