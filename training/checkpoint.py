"""Saving and restoring a stage: weights, optimisers, place in the data and time spent."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .optim import Schedule


class Checkpoint:
    """The state of a stage in one file, replaced atomically."""

    def __init__(self, path: Path, parts: list[nn.Module], optimisers: list[torch.optim.Optimizer]) -> None:
        self.path, self.parts, self.optimisers = path, parts, optimisers

    def load(self, schedule: Schedule, device: str) -> dict | None:
        """Restore everything and return the saved counters, or None where there is no file yet."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, weights_only=True, map_location=device)
        for part, weights in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(weights)
        for optimiser, weights in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(weights)
        schedule.spent = state["spent"]
        return state

    def save(self, schedule: Schedule, **counters: object) -> None:
        """Write the state together with ``counters``."""
        state = {
            "parts": [part.state_dict() for part in self.parts],
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "spent": schedule.elapsed(),
            **counters,
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").rename(self.path)
