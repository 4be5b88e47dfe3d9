"""Vision towers of the CLIP and SigLIP kind: which of their layers is the last one used."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def clips(arguments: dict[str, Any]) -> Tensor:
    """(videos, T, 3, H, W): the pixels of a call of ``get_video_features``, whatever the argument is called."""
    pixels: Tensor = arguments["pixel_values_videos" if "pixel_values_videos" in arguments else "pixel_values"]
    return pixels


def last_used_layer(layers: nn.ModuleList, selected: int | list[int] | None) -> Any:
    """The layer whose output is the last hidden state that a model reads.

    Args:
        layers: the tower's layers. selected: index or indexes of hidden states; state 0 is the embedding.
    """
    indexes = [-1] if selected is None else [selected] if isinstance(selected, int) else selected
    last = max(index % (len(layers) + 1) for index in indexes)
    return layers[max(last - 1, 0)]


def selected_layers(arguments: dict[str, Any], config: Any) -> int | list[int] | None:
    """``vision_feature_layer`` of a call, or else of the config."""
    selected = arguments.get("vision_feature_layer")
    layers: int | list[int] | None = config.vision_feature_layer if selected is None else selected
    return layers
