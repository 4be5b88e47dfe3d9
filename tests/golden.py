"""Inputs and outputs of the official codes, kept in tests/data/golden/<method>/."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from holitom.merge import Merge
from holitom.tokens import SpanStates, VideoTokens

ROOT = Path(__file__).parent / "data" / "golden"
TOLERANCE = 1e-4


class Case:
    """One golden case: ``params``, ``n_out`` and its tensors as attributes; float inputs come in float32."""

    def __init__(self, name: str, params: dict[str, Any], n_out: int, tensors: dict[str, torch.Tensor]) -> None:
        self.name, self.params, self.n_out = name, params, n_out
        self.tensors = {k: v.float() if v.is_floating_point() else v.long() for k, v in tensors.items()}

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return self.name


@cache
def cases(method: str) -> tuple[Case, ...]:
    index = json.loads((ROOT / method / "index.json").read_text())
    with safe_open(ROOT / method / "vectors.safetensors", "pt") as file:
        return tuple(
            Case(
                entry["name"],
                entry["params"],
                entry.get("n_out", 0),
                {name: file.get_tensor(f"{entry['name']}/{name}") for name in entry["inputs"] + entry["outputs"]},
            )
            for entry in index["cases"]
        )


def of_kind(method: str, kind: str | None) -> list[Case]:
    return [case for case in cases(method) if case.params.get("kind") == kind]


def video_of(case: Case, **fields: torch.Tensor) -> VideoTokens:
    side = case.params["g"]
    return VideoTokens(case.features, (side, side), **fields)


def assert_reproduces(merge: Merge, features: torch.Tensor, index: torch.Tensor, out: torch.Tensor | None) -> None:
    """The map has these anchors, in this order, and these output tokens."""
    assert merge.anchor.tolist() == index.tolist()
    if out is not None:
        torch.testing.assert_close(merge.apply(features.flatten(0, 1)), out, atol=TOLERANCE, rtol=0)


def span(hidden: torch.Tensor, attention: torch.Tensor | None, **fields: Any) -> SpanStates:
    """The visual span of a made-up video in front of layer 2 of 28; ``fields`` override."""
    count = hidden.shape[0]
    settings: dict[str, Any] = {"layer": 2, "depth": 28, "frames": 1, "grid": (1, count), "entered": count}
    settings |= {"place": torch.arange(count), "memory": {}} | fields
    return SpanStates(hidden, attention, **settings)


def kept_sequence(merge: Merge, start: int, length: int) -> list[int]:
    """The sequence positions that stay when ``merge`` acts on the visual span at ``start`` of ``length`` states."""
    after = range(start + merge.inputs, length)
    return [*range(start), *(merge.anchor + start).tolist(), *after]
