"""Budgets by content: as many tokens as say something new, at most the retention's, and late events stay."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_zoo import make_video

from holitom import VideoTokens
from holitom.integrations.vllm.config import ServingConfig
from holitom.methods import EVS, HoliTom, Method, Spread, parse, spell
from holitom.ops.content import FRAMES, new_tokens
from holitom.tokens import exact_count

METHODS = (
    HoliTom(retention=0.25, change=0.1, layer=None),
    HoliTom(retention=0.25, change=0.1, layer=None, similarity="auto"),
    EVS(retention=0.25, change=0.1),
    Spread(retention=0.25, change=0.1),
)
GRID, N = (10, 10), 100
each_method = pytest.mark.parametrize("method", METHODS, ids=repr)


def still(frames: int, seed: int = 0) -> torch.Tensor:
    """(T, N, 32): one picture."""
    return torch.randn(1, N, 32, generator=torch.Generator().manual_seed(seed)).repeat(frames, 1, 1)


def shown(features: torch.Tensor) -> VideoTokens:
    scores = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(5))
    return VideoTokens(features, GRID, scores=scores)


@each_method
def test_the_count_follows_what_changes_up_to_the_cap(method: Method) -> None:
    random = torch.Generator().manual_seed(1)
    features = still(16)
    cap = exact_count(16, GRID, 0.25)
    assert method.merge_video(shown(features)).validate().outputs == N
    features[6:, :30] = torch.randn(30, 32, generator=random)  # a third of the picture is another one from there on
    assert method.merge_video(shown(features)).validate().outputs == N + 30
    busy = torch.randn(16, N, 32, generator=random)
    assert method.merge_video(shown(busy)).validate().outputs == cap
    with pytest.raises(ValueError, match=f"at most {cap}"):
        method.token_count(16, GRID)


@each_method
@given(frames=st.integers(1, 12), seed=st.integers(0, 99), motion=st.sampled_from([0.0, 0.1, 1.0]), scale=st.just(37.0))
@settings(max_examples=15, deadline=None)
def test_scale_and_mean_of_a_tower_do_not_matter(method, frames, seed, motion, scale) -> None:
    video = make_video(frames, (5, 5), 8, seed, motion)
    other = dataclasses.replace(video, features=scale * (video.features + 0.5))
    assert new_tokens(video.features, 0.1).tolist() == new_tokens(other.features, 0.1).tolist()
    count = method.merge_video(video).validate().outputs
    assert 1 <= count <= exact_count(frames, (5, 5), 0.25)
    assert count == min(int(new_tokens(video.features, 0.1).sum()), exact_count(frames, (5, 5), 0.25))


@each_method
def test_a_late_event_of_a_short_clip_stays(method: Method) -> None:
    """The first half changes everywhere and would fill the budget; one small thing happens at the end."""
    random = torch.Generator().manual_seed(2)
    features = still(8)
    features[:4] = torch.randn(4, N, 32, generator=random)
    features[4:] = features[3]
    features[7, 40:44] = torch.randn(4, 32, generator=random)
    method = dataclasses.replace(method, retention=0.1)
    merge = method.merge_video(shown(features)).validate()
    assert merge.outputs == 80
    event = 7 * N + torch.arange(40, 44)
    anchors = torch.isin(merge.anchor, event)
    assert anchors.any()
    assert torch.isfinite(merge.apply(features.flatten(0, 1))).all()
    if isinstance(method, EVS):  # without floors the first frame takes all: its tokens count as changed
        assert not torch.isin(EVS(0.1, exact=True).merge_video(shown(features)).anchor, event).any()


def test_slow_drift_and_long_stills_are_news_in_time() -> None:
    features = still(2 * FRAMES)
    assert new_tokens(features, 0.1).sum(1).nonzero()[0].tolist() == [0, FRAMES]
    drift = torch.randn(1, N, 32, generator=torch.Generator().manual_seed(3)) * torch.linspace(0, 1, 32)[:, None, None]
    slow = new_tokens(still(32) + 2 * drift, 0.1)
    assert N < slow.sum() < 0.5 * slow.size  # no step is above the threshold, their sum is, again and again
    broken = still(4)
    broken[1, 3], broken[2, 5] = torch.nan, torch.inf
    assert new_tokens(broken, 0.1)[0].all()


def test_settings() -> None:
    for method in METHODS:
        assert parse(spell(method)) == method == parse(method.settings())
        fixed = method.with_token_count(37, 16, GRID)
        assert fixed.token_count(16, GRID) == 37
        with pytest.raises(ValueError, match="token count depends on the video's content"):
            ServingConfig(method)
    assert HoliTom(change=0.1).for_window(37, 16, GRID).token_count(16, GRID) == 37
    with pytest.raises(ValueError, match="change is a distance"):
        Spread(change=-1.0)
    with pytest.raises(ValueError, match="pruning_rate"):
        EVS(pruning_rate=0.5, change=0.1)
