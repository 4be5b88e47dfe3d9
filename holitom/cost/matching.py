"""Settings of different methods that cost the same, so that a table compares like with like."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from holitom.cost.flops import Flops, prefill_flops
from holitom.cost.shape import ModelShape
from holitom.methods.base import Method
from holitom.methods.chain import Chain
from holitom.tokens import SpanStates, VideoTokens

STEPS = 24  # of the bisection: the setting is found to a 16-millionth


@dataclass(frozen=True)
class Matched:
    """A method with the setting that meets a budget.

    Attributes:
        method: with that setting.
        flops: of the language model's prefill, counted for that setting, and of the vision tower where that was given.
        visual_per_layer: visual tokens in each decoder layer.
    """

    method: Method
    flops: int
    visual_per_layer: tuple[int, ...]


def matched_to(
    method: Method,
    *,
    flops: float,
    shape: ModelShape,
    frames: int,
    grid: tuple[int, int],
    text: int,
    video: VideoTokens | None = None,
    parameter: str | None = None,
    vision: Flops | None = None,
) -> Matched:
    """The largest setting of a method with which prefill stays within a budget of FLOPs.

    What is set is the retention of the stage before the LLM, where there is one (of a chain, the part that does it),
    and otherwise what the inner stage keeps. All other settings stay, so a chain is matched as a whole.

    Args:
        method: whose setting is found.
        flops: the budget, for one prompt.
        shape: the model.
        frames: T of the video.
        grid: its (h, w).
        text: the prompt's other tokens.
        video: a video to count on, for methods whose counts depend on the content. Without it, they need exact=True.
        parameter: the field to set, if another than the method's ``retention``, ``inner_retention``, ``shares`` or
            ``cost``, the first that it has. A tuple is scaled as a whole.
        vision: what the vision tower costs with this method's stage inside it, to count against the budget, which is
            then one for the first token: ``session.summary().cost.vision`` of a video of this kind. What a stage
            inside the tower saves is then free for tokens. None: the budget is that of prefill alone.

    Raises:
        ValueError: when the budget is below what the smallest setting costs, naming that; when nothing can be set; when
            counts depend on the content and there is no video.
    """
    name, inside = parameter or _parameter(method), 0 if vision is None else vision.total

    def measure(value: float) -> Matched:
        candidate = _with(method, name, value)
        visual = visual_schedule(candidate, shape.depth, frames, grid, video)
        cost: Flops = prefill_flops(shape, [text + count for count in visual])
        return Matched(candidate, cost.total + inside, visual)

    tried = [measure(1.0)]
    low, high = 0.0, 1.0
    for _ in range(STEPS if tried[0].flops > flops else 0):
        middle = (low + high) / 2
        try:
            tried.append(measure(middle))
        except ValueError:  # out of this method's reach, as DyCoke below its reference frames
            low = middle
            continue
        low, high = (middle, high) if tried[-1].flops <= flops else (low, middle)
    within = [each for each in tried if each.flops <= flops]
    if not within:
        raise ValueError(
            f"no {name} brings {type(method).__name__} down to {flops:.4g} FLOPs: its smallest needs "
            f"{min(each.flops for each in tried):.4g}, of which text{', the vision tower' if inside else ''} and the "
            "layers before an inner stage keep their share"
        )
    return max(within, key=lambda each: each.flops)


def visual_schedule(
    method: Method, depth: int, frames: int, grid: tuple[int, int], video: VideoTokens | None = None
) -> tuple[int, ...]:
    """The visual tokens in each of ``depth`` decoder layers, for one video.

    The stage before the LLM is counted by :meth:`Method.token_count`, or on ``video``. Inner stages run on made-up
    states without any likeness, evenly spread over the video: their counts are those of a real video, except where
    they depend on likeness (FrameFusion, which then prunes at once and costs the same) or on how the tokens are spread
    over frames (PruneVid, by rounding).

    Raises:
        ValueError: when counts depend on the content and there is no video.
    """
    positions = grid[0] * grid[1]
    place = torch.arange(frames * positions, device="cpu")
    if "before" in method.stages:
        if video is not None:
            place = method.merge_video(video).anchor.cpu()
        else:
            count = method.token_count(frames, grid)
            place = torch.arange(count, device="cpu") * (frames * positions) // count
    entered, memory = len(place), dict[str, object]()
    layers = method.layers(depth)
    counts = []
    for layer in range(depth):
        if layer in layers:
            seen = layer > 0 or method.attention == "coming"
            attention = torch.linspace(1, 0, len(place), dtype=torch.float32, device="cpu") if seen else None
            hidden = torch.zeros(len(place), 1, dtype=torch.float32, device="cpu")
            span = SpanStates(hidden, attention, layer, depth, place, frames, grid, entered, memory)
            place = method.merge_span(span).gather(place)
        counts.append(len(place))
    return tuple(counts)


def _parameter(method: Method) -> str:
    part = _part(method)
    fields = [field.name for field in dataclasses.fields(part)]
    for name in ("retention", "inner_retention", "shares", "cost"):
        if name in fields:
            return name
    raise ValueError(f"{type(part).__name__} has no retention to set: name a parameter, of {', '.join(fields)}")


def _part(method: Method) -> Method:
    return method.stage("before") or method.stage("inside") or method


def _with(method: Method, name: str, value: float) -> Method:
    part = _part(method)
    old = getattr(part, name)
    new: Any = tuple(value * share / max(old) for share in old) if isinstance(old, tuple) else value
    changed = dataclasses.replace(part, **{name: new})
    return method.replaced(part, changed) if isinstance(method, Chain) else changed
