"""One server's method at work: from a video's pixels, a part at a time, to the tokens that take its placeholders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holitom.integrations.vllm.config import ServingConfig
from holitom.integrations.vllm.tap import PatchTap
from holitom.merge import Merge
from holitom.models.base import PatchRecord
from holitom.models.tower_names import tower_name
from holitom.tokens import VideoTokens


@dataclass(frozen=True)
class TowerLimit:
    """How many rows (patches, or frames of a tower that takes frames) the vision tower may encode at once.

    vLLM admits a video by its tokens *after* compression, and measures its memory once, at start, with inputs of its
    own. What these bring is the limit.

    Args:
        rows: the most that may be encoded at once; a single frame always may.
    """

    rows: int

    @classmethod
    def measured(cls, vllm_config: Any) -> TowerLimit:
        """The rows of the inputs that vLLM measures its memory with.

        Args:
            vllm_config: vLLM's settings.
        """
        from vllm.multimodal import MULTIMODAL_REGISTRY
        from vllm.multimodal.encoder_budget import MultiModalBudget

        budget = MultiModalBudget(vllm_config, MULTIMODAL_REGISTRY, enable_cache=False)
        items = budget.get_dummy_encoder_profile_inputs()
        rows = [len(field.data) for _, item in items for key, field in item.items() if "pixel_values" in key]
        one_by_one = any(modality == "video" for modality, _ in items)  # videos are, images are encoded all at once
        return cls(max(rows, default=0) if one_by_one else sum(rows))

    def parts(self, frames: int, rows: int) -> Iterator[tuple[int, int]]:
        """The (first, last + 1) frames of each part of a video.

        Args:
            frames: T.
            rows: of one frame; a frame is never cut.
        """
        step = max(1, self.rows // rows)
        for first in range(0, frames, step):
            yield first, min(first + step, frames)


@dataclass(frozen=True, eq=False)
class Compressor:
    """A config, and what its method needs of the vision tower.

    Args:
        config: the method.
        tap: shows the tower's attention; None where this process has no vision tower (a later pipeline stage).
        limit: of the tower; None: none.
    """

    config: ServingConfig
    tap: PatchTap | None = None
    limit: TowerLimit | None = None

    @classmethod
    def of(cls, vllm_config: Any, hf_config: Any, attention: Any) -> Compressor:
        """What the model of a server needs.

        Args:
            vllm_config: vLLM's settings.
            hf_config: the config that the settings travelled in.
            attention: see :class:`PatchTap`; None: no tower in this process.
        """
        from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce

        config = ServingConfig(ServingConfig.of_hf_config(hf_config).method.for_tower(tower_name(hf_config)))
        if attention is None:
            return cls(config)
        needs = frozenset(str(need) for need in config.method.needs)
        tap = PatchTap(attention, needs, get_tensor_model_parallel_world_size(), tensor_model_parallel_all_reduce)
        return cls(config, tap, TowerLimit.measured(vllm_config))

    def parts(self, frames: int, rows: int) -> Iterator[tuple[int, int]]:
        """The frames to encode at once, see :meth:`TowerLimit.parts`; all of them without a limit."""
        return iter([(0, frames)]) if self.limit is None else self.limit.parts(frames, rows)

    def encode(
        self, encode: Callable[[int, int], Tensor], frames: int, patches: int, rows: int
    ) -> tuple[Tensor, PatchRecord]:
        """A video's features and what the tower looked at, encoded in parts of whole frames.

        Vision towers attend within a frame, so the parts say what one pass would say.

        Args:
            encode: gives the features (n * N, D) of the frames first..last of the video, by (first, last + 1).
            frames: T.
            patches: P, the keys of a frame in the tower.
            rows: of one frame in the tower, see :class:`TowerLimit`.

        Returns:
            (T * N, D), and the record of all T frames.
        """
        assert self.tap is not None
        features, records = [], []
        for first, last in self.parts(frames, rows):
            with self.tap.watching():
                features.append(encode(first, last))
            records.append(self.tap.record(last - first, patches))
        if len(records) == 1:
            return features[0], records[0]
        received, keys = (
            None if None in parts else torch.cat([part for part in parts if part is not None])
            for parts in zip(*((record.received, record.keys) for record in records), strict=True)
        )
        return torch.cat(features), PatchRecord(received, keys)

    def merge(
        self,
        features: Tensor,
        frames: int,
        grid: tuple[int, int],
        scores: Tensor | None,
        keys: Tensor | None,
        tower: Merge | None = None,
    ) -> Merge:
        """The method's map of one video's tokens.

        Args:
            features: (T * N, D) as they would enter the LLM.
            frames: T.
            grid: (rows, columns) with N = rows * columns.
            scores: (T, N).
            keys: (T, N, K).
            tower: the map inside the vision tower, see :class:`~holitom.VideoTokens`.

        Raises:
            RuntimeError: when a method does not keep its promise about the count. Placeholders are there already, so
                nothing can be done about it.
        """
        patches = features.view(frames, -1, features.shape[-1])
        tokens = VideoTokens(patches, grid, scores=scores, keys=keys, tower=tower)
        merge = self.config.method.merge_video(tokens)
        promised = self.config.token_count(frames, grid)
        if merge.outputs != promised:
            raise RuntimeError(
                f"{self.config.method!r} promised {promised} tokens of {frames} frames of {grid} and made "
                f"{merge.outputs}: its token_count() and merge_video() do not fit each other"
            )
        return merge
