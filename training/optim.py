"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import nn


def build_optimisers(modules: list[nn.Module], extra: list[nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices of hidden layers, AdamW for embeddings, norms, biases and heads."""
    matrices, rest = [], list(extra)
    seen = {id(p) for p in rest}
    for module in modules:
        for name, parameter in module.named_parameters():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            hidden = parameter.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if hidden else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


@dataclass
class Schedule:
    """Warm-up, constant rate, and linear decay over the last 45 %.

    Progress is counted in steps; ``minutes``, if given, bounds the time as well, whichever is further along. Time
    already spent survives a restart through ``spent``.
    """

    steps: int
    lr: float
    minutes: float | None = None
    spent: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds spent, restarts included."""
        return self.spent + time.monotonic() - self._since

    def progress(self, step: int) -> float:
        """Return the share of the run that is done, 0..1."""
        share = step / self.steps
        if self.minutes is not None:
            share = max(share, self.elapsed() / (60.0 * self.minutes))
        return min(share, 1.0)

    def set(self, optimisers: list[torch.optim.Optimizer], step: int) -> tuple[float, float]:
        """Set the rate for ``step``; returns progress and rate."""
        progress = self.progress(step)
        rate = self.lr * min(1.0, (step + 1) / 50) * min(1.0, max(0.02, (1.0 - progress) / 0.45))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        return progress, rate
