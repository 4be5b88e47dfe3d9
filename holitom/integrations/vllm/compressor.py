"""One server's method at work: from a video's features and patches to the tokens that take its placeholders."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from holitom.integrations.vllm.config import ServingConfig
from holitom.integrations.vllm.tap import PatchTap
from holitom.merge import Merge
from holitom.models.base import PatchRecord
from holitom.models.tower_names import tower_name
from holitom.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Compressor:
    """A config, and the tap on the vision tower that its method needs.

    Args:
        tap: None where this process has no vision tower (a later pipeline stage).
    """

    config: ServingConfig
    tap: PatchTap | None

    @classmethod
    def of(cls, hf_config: Any, attention: Any) -> Compressor:
        """What the model of a server needs.

        Args:
            hf_config: the config that the settings travelled in. attention: see :class:`PatchTap`; None: no tower.
        """
        from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce

        config = ServingConfig(ServingConfig.of_hf_config(hf_config).method.for_tower(tower_name(hf_config)))
        if attention is None:
            return cls(config, None)
        needs = frozenset(str(need) for need in config.method.needs)
        ranks = get_tensor_model_parallel_world_size()
        return cls(config, PatchTap(attention, needs, ranks, tensor_model_parallel_all_reduce))

    def watching(self) -> AbstractContextManager[None]:
        """Around the encoding of videos."""
        return nullcontext() if self.tap is None else self.tap.watching()

    def record(self, frames: list[tuple[int, int]]) -> list[PatchRecord]:
        """See :meth:`PatchTap.record`."""
        return [PatchRecord(None, None) for _ in frames] if self.tap is None else self.tap.record(frames)

    def merge(
        self, features: Tensor, frames: int, grid: tuple[int, int], scores: Tensor | None, keys: Tensor | None
    ) -> Merge:
        """The method's map of one video's tokens.

        Args:
            features: (T * N, D) as they would enter the LLM. scores: (T, N). keys: (T, N, K).

        Raises:
            RuntimeError: when a method does not keep its promise about the count. Placeholders are there already, so
                nothing can be done about it.
        """
        tokens = VideoTokens(features.view(frames, -1, features.shape[-1]), grid, scores=scores, keys=keys)
        merge = self.config.method.merge_video(tokens)
        promised = self.config.token_count(frames, grid)
        if merge.outputs != promised:
            raise RuntimeError(
                f"{self.config.method!r} promised {promised} tokens of {frames} frames of {grid} and made "
                f"{merge.outputs}: its token_count() and merge_video() do not fit each other"
            )
        return merge
