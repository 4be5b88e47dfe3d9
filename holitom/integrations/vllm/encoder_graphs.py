"""CUDA graphs of a vision tower whose videos are compressed (vLLM's ``cudagraph_mm_encoder``).

vLLM turns them off for models that prune, because what it prunes with runs behind the tower and a graph ends with the
tower. Here images take a graph as they do without compression; behind the graph of a video its method runs, on the
features of the graph and on queries and keys that the graph has copied. The queries and keys of the largest graph stay
in memory: 2 x patches x width of the tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from holitom.integrations.vllm.qwen_vl import TIMES, QwenVideos, times_of
from holitom.integrations.vllm.request import FIELD

NO_GRAPH = 1 << 40  # more tokens than any graph has


class GraphedVideos(QwenVideos):
    """Mixed into models of Qwen's kind, in front of vLLM's: each method says what it does beside vLLM's own."""

    use_data_parallel: bool
    _frames_in_a_graph = 0

    def get_encoder_cudagraph_config(self) -> Any:
        """Images and videos, which vLLM leaves out as soon as a model prunes.

        Where each rank encodes other videos (``mm_encoder_tp_mode`` "data"), images alone: vLLM gathers what graphs
        made by the numbers of tokens before compression.
        """
        config = super().get_encoder_cudagraph_config()  # type: ignore[misc]
        config.modalities = ["image"] if self.use_data_parallel else ["image", "video"]
        config.max_frames_per_video = 1 if self.use_data_parallel else self.get_max_frames_per_video()  # type: ignore[attr-defined]
        return config

    def prepare_encoder_cudagraph_capture_inputs(
        self, token_budget: int, max_batch_size: int, max_frames_per_batch: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Notes how many frames of a video a graph has."""
        self._frames_in_a_graph = max_frames_per_batch // max_batch_size
        return super().prepare_encoder_cudagraph_capture_inputs(  # type: ignore[misc]
            token_budget, max_batch_size, max_frames_per_batch, *args, **kwargs
        )

    def encoder_cudagraph_forward(self, values: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Copies, inside the graph, what the method will look at."""
        assert self.compressor.tap is not None
        with self.compressor.tap.copying():
            features: Tensor = super().encoder_cudagraph_forward(values, *args, **kwargs)  # type: ignore[misc]
        return features

    def get_encoder_cudagraph_item_specs(self, mm_kwargs: Mapping[str, Any]) -> Any:
        """Sends a video of more frames than graphs have through the tower as it is.

        Videos that would be too many tokens without compression come in here, too.
        """
        specs = super().get_encoder_cudagraph_item_specs(mm_kwargs)  # type: ignore[misc]
        if "video_grid_thw" in mm_kwargs:
            for spec, grid in zip(specs, mm_kwargs["video_grid_thw"], strict=True):
                if int(grid[0]) > self._frames_in_a_graph:
                    spec.output_tokens = NO_GRAPH
        return specs

    def select_encoder_cudagraph_items(self, mm_kwargs: Mapping[str, Any], indices: Sequence[int]) -> Any:
        """The times of videos and the settings of their request come along."""
        chosen = super().select_encoder_cudagraph_items(mm_kwargs, indices)  # type: ignore[misc]
        if "video_grid_thw" in mm_kwargs:
            for name in TIMES:
                if mm_kwargs.get(name) is not None:
                    chosen[name] = [mm_kwargs[name][index] for index in indices]
            chosen[FIELD] = mm_kwargs.get(FIELD)
        return chosen

    def encoder_eager_forward(self, mm_kwargs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """A video that no graph holds, compressed: vLLM gives each in a batch of its own."""
        if "video_grid_thw" not in mm_kwargs:
            features: Tensor = super().encoder_eager_forward(mm_kwargs, *args, **kwargs)  # type: ignore[misc]
            return features
        grids = torch.tensor(mm_kwargs["video_grid_thw"], device="cpu")
        videos = {**mm_kwargs, "type": "pixel_values_videos", "video_grid_thw": grids}
        with self.requested(mm_kwargs[FIELD]):
            (compressed,) = self._process_video_input(videos)
        return compressed

    def postprocess_encoder_output(
        self,
        outputs: Mapping[str, Tensor],
        indices: Sequence[int],
        per_item_out_tokens: Sequence[int],
        dest: Any,
        clone: bool = False,
        batch_mm_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Compresses videos behind their graph."""
        features = outputs["default"]
        if batch_mm_kwargs is None or "video_grid_thw" not in batch_mm_kwargs:
            super().postprocess_encoder_output(  # type: ignore[misc]
                outputs, indices, per_item_out_tokens, dest, clone, batch_mm_kwargs
            )
            return
        if features.shape[1] > self.embedding_width:  # without a graph, see encoder_eager_forward
            dest[indices[0]] = features
            return
        tap = self.compressor.tap
        assert tap is not None
        row = token = 0
        with self.requested(batch_mm_kwargs[FIELD]):
            for number, grid in enumerate(batch_mm_kwargs["video_grid_thw"]):
                steps, rows, columns = (int(side) for side in grid)
                record = tap.copied(row, steps, rows * columns)
                mine = features[token : token + math.prod(self.token_grid(grid))]
                times = times_of(batch_mm_kwargs, number)
                dest[indices[number]] = self.compress(mine, record, (steps, rows, columns), times)
                row, token = row + steps * rows * columns, token + len(mine)
