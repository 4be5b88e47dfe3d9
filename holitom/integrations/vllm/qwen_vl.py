"""What Qwen2.5-VL and Qwen3-VL share in vLLM: packed patches, and multi-axis positions of our own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holitom.integrations.vllm.compressor import Compressor
from holitom.integrations.vllm.placed import PlacedVideos
from holitom.integrations.vllm.positions import Media, grid_places, prompt_positions, to_channels
from holitom.integrations.vllm.processing import CompressedVideos, VideoShape
from holitom.integrations.vllm.request import RequestSettings
from holitom.models.base import PatchRecord

TIMES = ("second_per_grid_ts", "timestamps")
"""What a processed video holds about its times: the first for Qwen2.5-VL, the second for Qwen3-VL."""


def times_of(videos: Any, number: int) -> dict[str, Any]:
    """Those of the ``number``-th of some processed videos."""
    return {name: videos[name][number] for name in TIMES if videos.get(name) is not None}


class QwenProcessor(CompressedVideos):
    """Mixed into Qwen's processors: grids come with the processed videos."""

    @property
    def video_token(self) -> int:
        """The id of ``<|video_pad|>``."""
        return int(self.info.get_hf_config().video_token_id)

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> VideoShape:
        """The grid of steps, rows and columns; no text."""
        steps, rows, columns = kwargs["video"][number]["video_grid_thw"].data.tolist()
        side = self.info.get_hf_config().vision_config.spatial_merge_size
        return VideoShape(steps, (rows // side, columns // side))


class QwenVideos(RequestSettings, PlacedVideos):
    """Mixed into Qwen's models: compresses videos and gives every token its place.

    Images keep vLLM's embeddings and positions. Those of videos are wider by ``CHANNELS``, see
    :mod:`~holitom.integrations.vllm.positions`.
    """

    config: Any
    visual: Any
    compressor: Compressor

    def attach_compressor(self, vllm_config: Any) -> None:
        """Puts the tap on the last block, if this process has a tower."""
        blocks = getattr(self.visual, "blocks", None)
        attention = None if blocks is None else blocks[-1].attn.attn
        self.compressor = Compressor.of(vllm_config, self.config, attention)

    # encoding -----------------------------------------------------------------------------------------------------

    def video_places(self, grid: tuple[int, int, int], item: Mapping[str, Any]) -> np.ndarray:
        """(3, S) the places of all S tokens of a video before compression, text inside it included.

        Args:
            grid: steps, rows and columns of tokens.
            item: the processed video.
        """
        raise NotImplementedError

    def by_token(self, record: PatchRecord, frames: int, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Scores (T, N) and keys (T, N, K) of a video's tokens from those of its patches."""
        raise NotImplementedError

    def assemble(self, features: Tensor, merge: Any, grid: tuple[int, int, int], item: Mapping[str, Any]) -> Tensor:
        """(M, W + CHANNELS): the tokens that take the video's placeholders, and their places."""
        places = torch.from_numpy(self.video_places(grid, item)).to(features.device, non_blocking=True)
        return torch.cat([merge.apply(features), to_channels(places[:, merge.anchor], features.dtype)], dim=1)

    def token_grid(self, grid: Sequence[int]) -> tuple[int, int, int]:
        """Steps, rows and columns of tokens from those of patches."""
        side = self.visual_side
        return int(grid[0]), int(grid[1]) // side, int(grid[2]) // side

    @property
    def visual_side(self) -> int:
        """The side of a square of patches that becomes one token."""
        return int(self.config.vision_config.spatial_merge_size)

    def _process_video_input(self, video_input: Any) -> tuple[Tensor, ...]:
        done, start = [], 0
        for number, (steps, rows, columns) in enumerate(video_input["video_grid_thw"].tolist()):
            patches = rows * columns
            pixels = video_input["pixel_values_videos"][start : start + steps * patches]
            start += steps * patches
            encode = functools.partial(self._encode, video_input, pixels, (rows, columns))
            features, record = self.compressor.encode(encode, steps, patches, patches)
            done.append(self.compress(features, record, (steps, rows, columns), times_of(video_input, number)))
        return tuple(done)

    def compress(
        self, features: Tensor, record: PatchRecord, grid: tuple[int, int, int], item: Mapping[str, Any]
    ) -> Tensor:
        """One video as it enters the LLM, see :meth:`assemble`.

        Args:
            features: (T * N, W) as the tower gives them.
            record: what the tower's last layer looked at.
            grid: steps, rows and columns of patches.
            item: the processed video, as far as :meth:`video_places` needs it.
        """
        steps, rows, columns = self.token_grid(grid)
        scores, keys = self.by_token(record, steps, (rows, columns))
        seen = features[:, : self.config.vision_config.out_hidden_size]  # without Qwen3-VL's deepstack channels
        merge = self.compressor.merge(seen, steps, (rows, columns), scores, keys)
        return self.assemble(features, merge, (steps, rows, columns), item)

    def _encode(self, video_input: Any, pixels: Tensor, grid: tuple[int, int], first: int, last: int) -> Tensor:
        """The features of the steps first..last - 1 of a video, as vLLM's own model encodes them."""
        patches = grid[0] * grid[1]
        part = {
            "type": video_input["type"],
            "pixel_values_videos": pixels[first * patches : last * patches],
            "video_grid_thw": torch.tensor([[last - first, *grid]], device=video_input["video_grid_thw"].device),
        }
        features: Tensor = super()._process_video_input(part)[0]  # type: ignore[misc]
        return features

    def _postprocess_image_embeds_evs(self, image_embeds_split: Any, image_input: Any) -> Any:
        return image_embeds_split

    def _postprocess_video_embeds_evs(self, video_embeds_split: Any, video_input: Any) -> Any:
        return video_embeds_split  # _process_video_input has done it

    # positions ----------------------------------------------------------------------------------------------------

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Final positions of text and images, marks for videos; see :func:`prompt_positions`."""
        media = []
        for feature in sorted(mm_features, key=lambda each: each.mm_position.offset):
            video, span = feature.modality == "video", feature.mm_position
            grid = self.token_grid(feature.data[f"{feature.modality}_grid_thw"].data.tolist())
            if video:
                item = {
                    name: feature.data[name].data
                    for name in TIMES
                    if name in feature.data and feature.data[name].data is not None
                }
                places = self.video_places(grid, item)
            else:
                places = grid_places(np.arange(grid[0]), grid[1:])
            media.append(Media(span.offset, span.length, places, known=not video))
        return prompt_positions(len(input_tokens), media)

    @property
    def placeholder(self) -> int:
        """The id of ``<|video_pad|>``."""
        return int(self.config.video_token_id)

    @property
    def embedding_width(self) -> int:
        """The channels of an encoder's output without the places."""
        return int(self.config.vision_config.out_hidden_size)
