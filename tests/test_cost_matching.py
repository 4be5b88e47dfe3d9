"""Methods brought to the same FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from cost_models import config
from method_zoo import make_video

from holitom.cost import Flops, ModelShape, matched_to, prefill_flops, vision_flops, visual_schedule
from holitom.methods import Method, parse

DEPTH, FRAMES, GRID, TEXT = 8, 16, (6, 6), 30
SHAPE = ModelShape.from_config(config("llava_onevision", num_hidden_layers=DEPTH))
FULL = prefill_flops(SHAPE, [TEXT + FRAMES * 36] * DEPTH).total
VIDEO = make_video(FRAMES, GRID, 16, 0, 1.0)


@dataclass(frozen=True)
class Fixed(Method):
    """A method without anything to set."""


def match(method: str, share: float, **more: Any) -> Any:
    return matched_to(parse(method), flops=share * FULL, shape=SHAPE, frames=FRAMES, grid=GRID, text=TEXT, **more)


@pytest.mark.parametrize(
    "method",
    [
        "evs",
        "visionzip",
        "vcast",
        "divprune",
        "randomdrop",
        "averagepool",
        "uniformframes",
        "vidcom2:exact=true",
        "holitom:exact=true",
        "holitom:exact=true,layer=none",
        "visionzip|fastv:layer=3,inner_retention=0.3",
        "evs|framefusion:cost=0.5",
        "dycoke",
        "fastv",
        "pyramiddrop:layers_at=(2,4,6)",
        "framefusion",
    ],
)
def test_a_match_stays_within_the_budget_and_comes_near_it(method: str) -> None:
    share = 0.6 if method in ("dycoke", "fastv", "pyramiddrop:layers_at=(2,4,6)") else 0.3
    found = match(method, share)
    assert found.flops <= share * FULL
    assert type(found.method) is type(parse(method))
    assert found.flops == prefill_flops(SHAPE, [TEXT + n for n in found.visual_per_layer]).total
    coarse = method in ("uniformframes", "averagepool", "visionzip", "dycoke")  # whole frames, grids, tokens a frame
    assert found.flops >= (share - (0.08 if coarse else 0.015)) * FULL
    assert found.visual_per_layer == visual_schedule(found.method, DEPTH, FRAMES, GRID)


@pytest.mark.parametrize("method", ["prunevid", "fastvid", "flashvid", "vidcom2", "holitom:similarity=1.0"])
def test_counts_that_depend_on_the_content_are_taken_from_a_video(method: str) -> None:
    with pytest.raises(ValueError, match="exact=True"):
        match(method, 0.3)
    found = match(method, 0.3, video=VIDEO)
    assert 0.2 * FULL <= found.flops <= 0.3 * FULL
    assert found.visual_per_layer[0] == found.method.merge_video(VIDEO).outputs


def test_a_schedule_follows_every_inner_stage() -> None:
    method = parse("randomdrop:retention=0.5|pyramiddrop:layers_at=(2,4,6)")
    assert visual_schedule(method, DEPTH, FRAMES, GRID) == (288, 288, 144, 144, 72, 72, 36, 36)
    assert visual_schedule(parse("fastv:layer=3"), DEPTH, FRAMES, GRID) == (576,) * 3 + (288,) * 5
    cost = visual_schedule(parse("framefusion:cost=0.4"), DEPTH, FRAMES, GRID)
    assert sum(cost) == pytest.approx(0.4 * DEPTH * 576, rel=0.01)


def test_a_budget_out_of_reach_is_refused_and_a_generous_one_met_by_everything() -> None:
    with pytest.raises(ValueError, match="smallest needs"):
        match("fastv:layer=7", 0.3)
    with pytest.raises(ValueError, match="smallest needs"):
        match("dycoke", 0.1)
    assert match("evs", 2.0).method == parse("evs:retention=1.0")


def test_what_a_stage_inside_the_tower_saves_is_free_for_tokens() -> None:
    full = vision_flops(SHAPE, FRAMES, GRID)
    half = Flops(**{part: count // 2 for part, count in full.as_dict().items() if part != "total"})
    budget = (0.4 * FULL + full.total) / FULL  # for the first token
    alone = match("randomdrop", budget, vision=full)
    behind = match("renewal|randomdrop", budget, vision=half)
    assert alone.method == match("randomdrop", 0.4).method
    assert alone.flops == match("randomdrop", 0.4).flops + full.total
    saved = (full.total - half.total) / FULL
    assert behind.method == parse("renewal") | match("randomdrop", 0.4 + saved).method
    assert sum(behind.visual_per_layer) > sum(alone.visual_per_layer)
    with pytest.raises(ValueError, match="text, the vision tower and the layers"):
        match("randomdrop", 0.01, vision=full)


def test_another_parameter_can_be_set() -> None:
    found = match("evs|fastv:layer=2", 0.3)
    assert found.method.inside == parse("fastv:layer=2")
    assert match("fastv:layer=1", 0.3, parameter="inner_retention").flops <= 0.3 * FULL
    with pytest.raises(ValueError, match="name a parameter"):
        matched_to(Fixed(), flops=FULL, shape=SHAPE, frames=FRAMES, grid=GRID, text=TEXT)
