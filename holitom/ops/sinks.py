"""Attention sinks: positions that receive much attention in every frame, whatever they show."""

from __future__ import annotations

import torch
from torch import Tensor

POWER = 1.1  # as published


def sink_scores(scores: Tensor, power: float = POWER) -> Tensor:
    """How much each position is an attention sink: its mean score over time, to a power, scaled to 0..1.

    A factor on all scores changes nothing. Source: SToP (arXiv 2604.20937).

    Args:
        scores: (T, N) floating point, the attention that each position receives; below 0 or not finite counts as 0.
        power: gamma.

    Returns:
        (N,) float32: 1 for the position with the largest mean, 0 for that with the smallest, and where all are equal.
    """
    mean = scores.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0).mean(0)
    mean = (mean / mean.amax().clamp(min=torch.finfo(torch.float32).tiny)) ** power
    low = mean.amin()
    return (mean - low) / (mean.amax() - low + 1e-12)
