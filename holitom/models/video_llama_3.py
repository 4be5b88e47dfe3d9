"""VideoLLaMA3: a SigLIP tower for any resolution, bilinear reduction, time stamps between frames."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holitom.models.base import Adapter, PatchRecord, VideoLayout, register
from holitom.models.patches import places_of_units
from holitom.models.towers import Tower, TowerVideo


@register("VideoLlama3ForConditionalGeneration")
class VideoLlama3Adapter(Adapter):
    """Serves VideoLLaMA3 (2B, 7B) in transformers' format."""

    families: ClassVar[dict[str, str]] = {"VideoLlama3ForConditionalGeneration": "VideoLLaMA3"}
    scores_from: ClassVar[str] = "received; last layer; bilinear"

    def vision_attention(self, arguments: dict[str, Any]) -> nn.Module | None:
        """The last layer."""
        attention: nn.Module = self.base.vision_model.encoder.layers[-1].self_attn
        return attention

    def tower(self, arguments: dict[str, Any], prompt: tuple[Tensor, Tensor] | None = None) -> Tower:
        """See :meth:`Adapter.tower`."""
        blocks = self.base.vision_model.encoder.layers
        videos, first = [], 0
        sizes = zip(arguments["video_grid_thw"].tolist(), arguments["video_merge_sizes"].tolist(), strict=True)
        for (frames, rows, columns), side in sizes:
            order = places_of_units((rows // side, columns // side), side)
            videos.append(TowerVideo.contiguous(first, frames, (rows, columns), order=order))
            first += frames * rows * columns
        return Tower(blocks, [block.self_attn for block in blocks], (len(blocks) - 1,), videos)

    def check(self, arguments: dict[str, Any]) -> None:
        """Refuses prompts from which the processor has removed tokens already: their frames have holes."""
        mask = arguments.get("video_compression_mask")
        if mask is not None and not bool(mask.all()):
            raise ValueError(
                "the processor has already dropped video tokens (video_compression_mask is not all True), so frames "
                "are incomplete: call the VideoLLaMA3 processor with use_token_compression=False"
            )

    def layouts(self, output: Any, arguments: dict[str, Any], patches: PatchRecord) -> list[VideoLayout]:
        """One layout for each row of ``video_grid_thw`` (videos, 3): frames, rows and columns of patches."""
        sizes = zip(arguments["video_grid_thw"].tolist(), arguments["video_merge_sizes"].tolist(), strict=True)
        videos = [(t, h, w, side) for (t, h, w), side in sizes]
        scores, keys = (self._reduce(values, videos) for values in (patches.received, patches.keys))
        return [
            VideoLayout.contiguous(t, (h // side, w // side), scores=scores[number], keys=keys[number])
            for number, (t, h, w, side) in enumerate(videos)
        ]

    def _reduce(self, values: Tensor | None, videos: list[tuple[int, int, int, int]]) -> list[Any]:
        """(F, P[, K]) in the tower's order -> (T, N[, K]) for each video, reduced as the tower reduces features."""
        if values is None:
            return [None] * len(videos)
        rows = values.flatten(0, 1)
        rows = rows if rows.dim() == 2 else rows[:, None]
        grids = torch.tensor([video[:3] for video in videos], device="cpu")
        sides = torch.tensor([video[3] for video in videos], device="cpu")
        reduced = self.base.vision_model.pixel_unshuffle(rows, grids, sides)
        parts = reduced.split([t * (h // side) * (w // side) for t, h, w, side in videos])
        shaped = [part.unflatten(0, (video[0], -1)) for part, video in zip(parts, videos, strict=True)]
        return [part[..., 0] for part in shaped] if values.dim() == 2 else shaped
