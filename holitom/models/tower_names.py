"""What a method is told of the vision tower whose features it sees."""

from __future__ import annotations

from typing import Any


def tower_name(config: Any) -> str:
    """The family of a model and the kind of its vision tower: what published settings depend on.

    Args:
        config: of a transformers model, as ``model.config``.

    Returns:
        Both types with a slash between them, as ``"llava_onevision/siglip_vision_model"``; "" for what the config does
        not say.
    """
    vision = getattr(config, "vision_config", None)
    return f"{getattr(config, 'model_type', '')}/{getattr(vision, 'model_type', '')}"
