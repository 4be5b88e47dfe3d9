"""Prompts through a model: where their tensors go, videos encoded once for many of them, and what generating gives."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from holitom.cost import synchronize
from holitom.merge import Merge
from holitom.methods.base import Method, Need
from holitom.methods.baselines import Uncompressed
from holitom.models import adapter_for
from holitom.models.placement import dtype_of, input_device
from holitom.runtime import Session, layouts_of, with_layouts
from holitom.tokens import TowerStates
from holitom.video.prepare import to_device

Clock = Callable[[], float]


def on_device_of(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs where a model takes them, pixels in the dtype that it computes in."""
    return to_device(inputs, input_device(model), dtype_of(model))


def pixels_of(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of a model's encoder of videos among the inputs of ``generate()``."""
    adapter = adapter_for(model)
    named = inspect.signature(getattr(adapter.base, adapter.encoder)).parameters
    text = ("input_ids", "attention_mask", "position_ids")
    return {name: value for name, value in inputs.items() if name in named and name not in text}


@torch.inference_mode()
def encode(
    model: Any,
    pixels: Mapping[str, Tensor],
    needs: frozenset[Need] = frozenset(),
    timer: Any = None,
    tower: Method | None = None,
) -> Any:
    """Encodes videos once, for any number of prompts and methods: a value of ``mm_encoder_outputs=``.

    Args:
        model: a transformers video LLM.
        pixels: the arguments of its encoder, see :func:`pixels_of`.
        needs: what methods to come read beyond the features.
        timer: see :class:`~holitom.runtime.Session`.
        tower: whose stage inside the vision tower is at work.
    """
    adapter = adapter_for(model)
    with Session(_Show(needs) if tower is None else _ShowBehind(needs, tower), model, timer=timer):
        return getattr(adapter.base, adapter.encoder)(**pixels, return_dict=True)


def repeated(encoded: Any, times: int) -> Any:
    """What :func:`encode` gave, for a batch in which these videos stand ``times`` times, one set after the other."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat(times, *[1] * (value.dim() - 1))
        return [*value] * times

    more = copy.copy(encoded)
    more.pooler_output = repeat(encoded.pooler_output)
    deep = getattr(encoded, "deepstack_features", None)
    if deep is not None:
        more.deepstack_features = [repeat(layer) for layer in deep]
    layouts = layouts_of(encoded)
    if isinstance(encoded.pooler_output, Tensor) and layouts is not None:  # in a list, each tensor brings its own
        with_layouts(more, layouts * times)
    return more


def with_encoded(model: Any, inputs: Mapping[str, Tensor], encoded: Any) -> dict[str, Any]:
    """Inputs of ``generate()`` whose pixels are encoded already; sizes and rates, which positions need, stay."""
    pixels = {name for name, value in pixels_of(model, inputs).items() if value.is_floating_point()}
    rest = {name: value for name, value in inputs.items() if name not in pixels}
    return {**rest, "mm_encoder_outputs": {adapter_for(model).modality: encoded}}


@dataclass(frozen=True, eq=False)
class Generated:
    """What one call of ``generate()`` gave.

    Attributes:
        output: what it returned.
        tokens: (N, G) int64, the generated tokens of N answers, shorter ones padded on the right.
        first: seconds until the first token was there.
        seconds: of the whole call.
        steps: seconds between each token and the one before it, as the host saw them.
    """

    output: Any
    tokens: Tensor
    first: float
    seconds: float
    steps: list[float]


@torch.inference_mode()
def generate(
    session: Session, inputs: Mapping[str, Any], clock: Clock = time.perf_counter, **options: Any
) -> Generated:
    """Runs ``generate()`` of a session's model; greedy search where the options say nothing else.

    Args:
        session: at work on its model.
        inputs: of the prompt, on the model's device, with ``input_ids`` (B, L).
        clock: seconds; the device is waited for before each reading.
        options: further arguments of ``generate()``.
    """
    device = inputs["input_ids"].device
    tokens = _Tokens(device, clock)
    criteria = [*(options.pop("stopping_criteria", None) or []), tokens]
    synchronize(device)
    start = clock()
    output = session.model.generate(**inputs, **{"do_sample": False, **options}, stopping_criteria=criteria)
    synchronize(device)
    end = clock()
    ids = output if isinstance(output, Tensor) else output.sequences
    arrived = tokens.times[0] if tokens.times else end
    steps = [then - before for before, then in pairwise(tokens.times)]
    return Generated(output, ids[:, inputs["input_ids"].shape[1] :], arrived - start, end - start, steps)


class _Tokens:
    """A stopping criterion that never stops, and notes when it is asked; it waits for the first token alone."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device, self.clock = device, clock
        self.times: list[float] = []

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if not self.times:
            synchronize(self.device)
        self.times.append(self.clock())
        return ids.new_zeros(len(ids), dtype=torch.bool)


class _Show(Uncompressed):
    """Has the vision tower show what methods to come will need."""

    def __init__(self, needs: frozenset[Need]) -> None:
        object.__setattr__(self, "needs", needs)


class _ShowBehind(_Show):
    """The same behind another method's stage inside the vision tower."""

    def __init__(self, needs: frozenset[Need], tower: Method) -> None:
        super().__init__(needs)
        for name in ("tower_layers", "merge_tower", "tower_needs"):
            object.__setattr__(self, name, getattr(tower, name))

    def merge_tower(self, states: TowerStates) -> Merge:
        """Stands here to say that there is such a stage; the instance has the method's own."""
        raise NotImplementedError
