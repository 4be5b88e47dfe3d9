"""What models with multi-axis rotary positions do with the places that come with compressed videos. Needs vLLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from holitom.integrations.vllm.positions import delta, from_channels, place_videos


class PlacedVideos:
    """Mixed into a served model whose encoder gives videos that are wider by their places, see :mod:`.positions`."""

    @property
    def placeholder(self) -> int:
        """The id of the token that stands for a video in a prompt."""
        raise NotImplementedError

    @property
    def embedding_width(self) -> int:
        """The channels of an encoder's output without the places."""
        raise NotImplementedError

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[list[Tensor], Tensor, int]:
        """Takes the places off the encoder's output and resolves the marks of this chunk; see :func:`place_videos`."""
        width = self.embedding_width
        rows = [each[:, width:] for each in multimodal_embeddings if each.shape[1] > width]
        embeddings = [each[:, :width] for each in multimodal_embeddings]
        with gpu_sync_allowed():
            if rows:
                ids = torch.as_tensor(input_ids, device=mrope_positions.device)
                places = from_channels(torch.cat(rows)).to(mrope_positions.device)
                mrope_positions = place_videos(mrope_positions, ids == self.placeholder, places, num_computed_tokens)
            return embeddings, mrope_positions, delta(mrope_positions)
