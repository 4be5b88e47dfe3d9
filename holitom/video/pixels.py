"""From frames to the pixel values of a vision tower, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def shrunk(
    frame: NDArray[np.uint8], size: tuple[int, int], resample: Literal["bilinear", "bicubic"]
) -> NDArray[np.uint8]:
    """A frame (H, W, 3) as (h, w, 3), resized on bytes with antialiasing as torchvision does; none that would grow."""
    if size[0] * size[1] >= frame.shape[0] * frame.shape[1]:
        return frame
    pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size=list(size), mode=resample, align_corners=False, antialias=True)
    made: NDArray[np.uint8] = resized[0].permute(1, 2, 0).contiguous().numpy()
    return made


@dataclass(frozen=True)
class PixelRecipe:
    """How a checkpoint wants its frames: resized, scaled, normalised.

    Gives the values of transformers' ``LlavaOnevisionVideoProcessor`` to the bit: the same antialiased resize on bytes,
    and scaling folded into mean and standard deviation.

    Attributes:
        size: (height, width) in pixels; None keeps the size of the frames.
        resample: how to resize.
        scale: factor on byte values, usually 1/255; None leaves them.
        mean: per channel, of the scaled values; None leaves them.
        std: per channel, of the scaled values; None leaves them.
    """

    size: tuple[int, int] | None = (384, 384)
    resample: Literal["bilinear", "bicubic"] = "bicubic"
    scale: float | None = 1 / 255
    mean: tuple[float, ...] | None = CLIP_MEAN
    std: tuple[float, ...] | None = CLIP_STD

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size must be (height, width) of at least 1 pixel each, got {self.size}")
        if self.resample not in RESAMPLING.values():
            raise ValueError(f"resample must be bilinear or bicubic, got {self.resample!r}")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean and std go together, got mean={self.mean} and std={self.std}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != 3:
                raise ValueError(f"{name} must have one value for each of 3 channels, got {values}")
        if self.std is not None and not all(self.std):
            raise ValueError(f"std must not be 0, got {self.std}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PixelRecipe:
        """Read a ``video_preprocessor_config.json`` (what it leaves out is LLaVA-OneVision's default)."""
        if config.get("do_center_crop"):
            raise ValueError("do_center_crop is not supported for LLaVA-OneVision videos: remove it from the config")
        size = None
        if config.get("do_resize", True):
            given = config.get("size") or {"height": 384, "width": 384}
            if not isinstance(given, Mapping) or "height" not in given or "width" not in given:
                raise ValueError(
                    f'size must be {{"height": ..., "width": ...}} for LLaVA-OneVision videos, got {given}'
                )
            size = (int(given["height"]), int(given["width"]))
        number = config.get("resample", 3)
        if number not in RESAMPLING:
            raise ValueError(f"resample must be 2 (bilinear) or 3 (bicubic), got {number}")
        normalize = config.get("do_normalize", True)
        return cls(
            size=size,
            resample=RESAMPLING[number],
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else None,
            mean=tuple(config.get("image_mean") or CLIP_MEAN) if normalize else None,
            std=tuple(config.get("image_std") or CLIP_STD) if normalize else None,
        )

    def __call__(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """(T, H, W, 3) uint8 RGB to (T, 3, h, w) float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # resized fastest as it lies
        if self.size is not None and tuple(pixels.shape[-2:]) != self.size:
            pixels = F.interpolate(
                pixels, size=list(self.size), mode=self.resample, align_corners=False, antialias=True
            )
        values = pixels.contiguous().to(torch.float32)
        if self.mean is None or self.std is None:
            return values if self.scale is None else values * self.scale
        # (x * scale - mean) / std, with the scale moved into mean and std: one pass less over the pixels.
        unit = 1.0 if self.scale is None else 1.0 / self.scale
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu").mul(unit).view(3, 1, 1) for v in (self.mean, self.std)
        )
        return values.sub_(mean).div_(std)
