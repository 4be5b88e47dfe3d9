"""Spread: what its picks promise, in order and in rounds."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_zoo import make_video, videos

from holitom.methods.spread import Spread
from holitom.ops.spread import FAR, directions, round_sizes, sketch, spread_in_order, spread_in_rounds
from holitom.tokens import VideoTokens

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from launches import counting, place

BOTH = pytest.mark.parametrize("pick", [spread_in_order, spread_in_rounds], ids=["order", "rounds"])
STEP = 0.25


def prepared(video: VideoTokens) -> tuple[torch.Tensor, torch.Tensor]:
    return directions(sketch(video.features, 64))


def distances(unit: torch.Tensor, step: float) -> torch.Tensor:
    """(S, S) between all tokens."""
    frames, positions, channels = unit.shape
    flat = unit.reshape(-1, channels)
    frame = torch.arange(frames).repeat_interleave(positions).float()
    return 1 - flat @ flat.T + step * (frame[:, None] - frame).abs()


def farthest_by_brute_force(
    unit: torch.Tensor, weight: torch.Tensor, count: int, step: float
) -> tuple[list[int], torch.Tensor]:
    """The definition: each pick is compared with every token."""
    every = distances(unit, step)
    nearest, picks = torch.full((len(every),), FAR), []
    for _ in range(count):
        score = nearest * weight.flatten()
        score[picks] = -1
        picks.append(int(score.argmax()))
        nearest = nearest.minimum(every[picks[-1]])
    nearest[picks] = 0.0
    return picks, nearest


@given(video=videos(), step=st.sampled_from([0.0, 0.06, 0.25, 1.0, 5.0]), share=st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_comparing_a_pick_with_a_few_frames_gives_what_comparing_with_all_gives(
    video: VideoTokens, step: float, share: float
) -> None:
    unit, weight = prepared(video)
    count = max(1, round(share * weight.numel()))
    picks = spread_in_order(unit, weight, count, step)
    _, nearest = farthest_by_brute_force(unit, weight, count, step)
    assert len(picks.index.unique()) == count
    every = distances(unit, step)
    owned = every[picks.index[picks.owner], torch.arange(weight.numel())]
    owned[picks.index] = 0.0
    torch.testing.assert_close(picks.distance, owned, atol=1e-5, rtol=0)
    # equal scores may be told apart by rounding, so it is the covered distances that are compared
    score, truth = picks.distance * weight.flatten(), nearest * weight.flatten()
    torch.testing.assert_close(score.max(), truth.max(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("step", [0.06, 0.25, 1.0])
def test_without_ties_the_picks_are_those_of_the_definition(step: float) -> None:
    unit, weight = prepared(make_video(20, (5, 5), 96, 3, 0.3))
    picks = spread_in_order(unit, weight, 60, step)
    truth, nearest = farthest_by_brute_force(unit, weight, 60, step)
    assert picks.index.tolist() == truth
    torch.testing.assert_close(picks.distance, nearest, atol=1e-5, rtol=0)


@BOTH
@given(video=videos(), shares=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)))
@settings(max_examples=30, deadline=None)
def test_a_smaller_number_has_the_first_picks_of_a_larger_one(pick, video, shares) -> None:
    unit, weight = prepared(video)
    small, large = sorted(max(1, round(share * weight.numel())) for share in shares)
    few, many = pick(unit, weight, small, STEP).index, pick(unit, weight, large, STEP).index
    assert len(many.unique()) == large
    assert torch.equal(few, many[:small])


@BOTH
def test_nearest_picks_are_nearest(pick) -> None:
    unit, weight = prepared(make_video(16, (4, 6), 70, 1, 0.5))
    picks = pick(unit, weight, 40, STEP)
    nearest = distances(unit, STEP)[picks.index].min(0)
    others = torch.ones(weight.numel(), dtype=torch.bool)
    others[picks.index] = False
    assert picks.owner[picks.index].tolist() == list(range(40))
    assert not picks.distance[picks.index].any()
    torch.testing.assert_close(picks.distance[others], nearest.values[others], atol=1e-5, rtol=0)
    assert torch.equal(picks.owner[others], nearest.indices[others])


@pytest.mark.parametrize("motion", [0.05, 0.3, 1.0])
def test_rounds_cover_a_video_about_as_well_as_picks_in_order(motion: float) -> None:
    unit, weight = prepared(make_video(24, (8, 8), 96, 5, motion))
    left = {
        pick: (pick(unit, weight, 150, STEP).distance * weight.flatten()).mean()
        for pick in (spread_in_order, spread_in_rounds)
    }
    assert left[spread_in_rounds] < 1.1 * left[spread_in_order]


@pytest.mark.parametrize("pick", ["order", "rounds"])
def test_a_common_mean_and_the_scale_of_features_change_nothing(pick: str) -> None:
    video = make_video(12, (5, 5), 200, 2, 0.3)
    method = Spread(retention=0.2, pick=pick)
    plain = method.merge_video(video)
    common = torch.randn(200, generator=torch.Generator().manual_seed(9))
    common *= 20 * video.features.norm(dim=-1).mean() / common.norm()
    for features in (video.features + common, video.features * 1e-25, video.features * 1e25):
        merge = method.merge_video(dataclasses.replace(video, features=features))
        assert torch.equal(merge.anchor, plain.anchor)
        assert torch.equal(merge.target, plain.target)


@pytest.mark.parametrize("pick", ["order", "rounds"])
def test_what_is_seen_in_one_frame_alone_stays(pick: str) -> None:
    """A still scene, and something that flashes: a tenth of the tokens of a frame, in one frame of 24."""
    video = make_video(24, (6, 6), 128, 4, 0.01)
    features = video.features.clone()
    features[13, 20:23] += 3 * torch.randn(128, generator=torch.Generator().manual_seed(5))
    merge = Spread(retention=0.05, pick=pick).merge_video(dataclasses.replace(video, features=features)).validate()
    assert set(merge.anchor.tolist()) & {13 * 36 + place for place in (20, 21, 22)}


@pytest.mark.parametrize("pick", ["order", "rounds"])
def test_a_scene_that_stands_still_is_seen_all_along(pick: str) -> None:
    video = make_video(32, (3, 3), 80, 4, 0.0)
    frames = Spread(retention=0.25, pick=pick).merge_video(video).anchor // 9
    gaps = torch.cat([torch.tensor([-1]), frames.unique(), torch.tensor([32])]).diff()
    assert int(gaps.max()) <= 6
    assert len(frames.unique()) >= 12


@pytest.mark.parametrize("pick", ["order", "rounds"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tokens_that_are_no_numbers_come_last_and_spoil_no_other(pick: str, bad: float) -> None:
    video = make_video(8, (4, 4), 80, 0, 0.2)
    features = video.features.clone()
    features[2, 5, 7] = features[6, 1] = bad
    broken = dataclasses.replace(video, features=features)
    merge = Spread(retention=0.3, join=2.0, pick=pick).merge_video(broken).validate()
    assert merge.apply(features.flatten(0, 1)).isfinite().all()
    most = Spread(retention=127 / 128, pick=pick).merge_video(broken).validate()
    assert len({2 * 16 + 5, 6 * 16 + 1} & set(most.anchor.tolist())) == 1
    every = torch.full_like(features, bad)
    assert Spread(retention=0.3, pick=pick).merge_video(dataclasses.replace(video, features=every)).outputs == 38


def test_what_joins_is_averaged_with_its_pick() -> None:
    video = make_video(6, (4, 4), 40, 1, 0.05)
    x = video.features.flatten(0, 1)
    method = Spread(retention=0.1, join=1.0)
    merge = method.merge_video(video).validate()
    out = merge.apply(x)
    joined = 0
    for output in range(merge.outputs):
        sources = merge.sources(output)[0]
        pick = merge.anchor[output]
        others = sources[sources != pick]
        joined += len(others)
        expected = x[pick] if not len(others) else 0.6 * x[pick] + 0.4 * x[others].mean(0)
        torch.testing.assert_close(out[output], expected)
    assert joined > 20
    alone = Spread(retention=0.1, join=0.0).merge_video(video)
    assert torch.equal(alone.apply(x), x[merge.anchor])
    assert torch.equal(merge.anchor, merge.anchor.sort().values)


def test_rounds_are_few_and_grow_with_the_logarithm_of_the_count() -> None:
    assert len(round_sizes(32 * 196, 627)) <= 10
    assert len(round_sizes(1024 * 196, 20070)) <= 15
    unit, weight = prepared(VideoTokens(torch.randn(32, 196, 64), (14, 14)))
    counts = []
    for count in (157, 627):
        with counting() as found:
            spread_in_rounds(place(unit), place(weight), count, STEP)
        counts.append(found.operations.total())
        assert not found.waits
    assert counts[1] <= 200
    assert counts[1] - counts[0] <= 2 * 25  # two rounds more


def test_picks_never_wait_for_the_device() -> None:
    features = torch.empty(8, 36, 200, device="meta", dtype=torch.bfloat16)
    for pick in ("rounds", "auto"):
        merge = Spread(retention=0.2, pick=pick).merge_video(VideoTokens(features, (6, 6)))
        assert merge.outputs == 58
        assert {merge.target.device.type, merge.weight.device.type, merge.anchor.device.type} == {"meta"}


def test_the_sketch_keeps_angles() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(4, 50, 3601, generator=random)  # no multiple of the width
    features += 0.7 * features[:, :1]
    short, plain = sketch(features, 64).flatten(0, 1), features.flatten(0, 1)
    cosine = torch.nn.functional.normalize(plain, dim=-1) @ torch.nn.functional.normalize(plain, dim=-1).T
    sketched = torch.nn.functional.normalize(short, dim=-1) @ torch.nn.functional.normalize(short, dim=-1).T
    assert short.shape == (200, 64)
    assert (cosine - sketched).square().mean().sqrt() < 1.2 / 8
    assert sketch(features[..., :64], 64).equal(features[..., :64])


@pytest.mark.parametrize(
    ("name", "value"), [("step", -1.0), ("join", float("nan")), ("centre_weight", 1.1), ("width", 0), ("pick", "best")]
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Spread(**{name: value})
