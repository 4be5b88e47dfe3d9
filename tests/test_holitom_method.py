"""What a user relies on of HoliTom itself, for any video."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from golden import span
from hypothesis import given, settings
from hypothesis import strategies as st
from method_zoo import make_video

from holitom import HoliTom, VideoTokens, exact_count
from holitom.methods import FastV


@st.composite
def videos(draw):
    """Clips of every small shape, from all static to all moving, with ties in the scores."""
    frames, rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    still = draw(st.sampled_from([0.0, 0.5, 1.0]))
    base = torch.randn(1, rows * columns, 8, generator=generator)
    moving = torch.rand(frames, rows * columns, 1, generator=generator) >= still
    features = torch.where(moving, torch.randn(frames, rows * columns, 8, generator=generator), base)
    scores = torch.rand(frames, rows * columns, generator=generator).mul(4).round()
    return VideoTokens(features, (rows, columns), scores)


methods = st.builds(
    HoliTom,
    retention=st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]),
    similarity=st.sampled_from([None, 0.0, 0.65, 0.9]),
    centre_weight=st.sampled_from([0.6, None, 0.0, 1.0]),
    exact=st.booleans(),
    max_frames=st.integers(1, 8),
)


@given(videos(), methods)
@settings(max_examples=300)
def test_every_map_is_sound(video, method):
    merge = method.merge_video(video).validate()
    assert merge.shares is None
    assert 1 <= merge.outputs <= merge.inputs
    again = method.merge_video(video)
    assert all(torch.equal(getattr(merge, name), getattr(again, name)) for name in ("target", "weight", "anchor"))
    assert merge.apply(video.features.flatten(0, 1).half()).dtype == torch.float16


@given(videos(), st.sampled_from([0.001, 0.1, 0.33, 0.5, 0.9, 1.0]), st.sampled_from([None, -1.0, 0.5]))
@settings(max_examples=300)
def test_exact_counts_are_met_to_the_token(video, retention, similarity):
    method = HoliTom(retention=retention, similarity=similarity, exact=True)
    merge = method.merge_video(video).validate()
    assert (
        merge.outputs
        == exact_count(video.frames, video.grid, retention)
        == method.token_count(video.frames, video.grid)
    )


@given(videos())
def test_retention_one_is_the_identity(video):
    merge = HoliTom(retention=1.0).merge_video(video)
    assert torch.equal(merge.anchor, torch.arange(merge.inputs))
    assert torch.equal(merge.apply(video.features.flatten(0, 1)), video.features.flatten(0, 1))


@given(videos())
def test_outputs_come_in_the_published_order(video):
    """Segments in order; in each its merged static tokens by position, then every frame's kept tokens by position."""
    method = HoliTom(retention=0.5, similarity=0.65)
    merge, keys = method.merge_video(video), []
    spans = method.segment(video).spans
    for output in range(merge.outputs):
        anchor = int(merge.anchor[output])
        frame, position = divmod(anchor, video.positions)
        number = next(i for i, (first, last) in enumerate(spans) if first <= frame <= last)
        merged = len(merge.sources(output)[0]) > 1
        keys.append((number, not merged, 0 if merged else frame, position))
    assert keys == sorted(keys)


def test_static_positions_merge_over_time():
    features = torch.randn(1, 4, 8).repeat(5, 1, 1)
    features[:, 3] = torch.randn(5, 8)
    merge = HoliTom(retention=1.0, similarity=0.9).merge_video(VideoTokens(features, (2, 2), torch.rand(5, 4)))
    assert merge.outputs == 3 + 5
    source, weight = merge.sources(0)
    assert source.tolist() == [0, 4, 8, 12, 16]
    torch.testing.assert_close(weight, torch.full((5,), 0.2))


def test_the_published_settings():
    assert [HoliTom(retention=r).threshold for r in (0.05, 0.1, 0.15, 0.2, 0.25, 1.0)] == [
        0.65,
        0.65,
        0.8,
        0.8,
        0.8,
        1.0,
    ]
    assert HoliTom().layers(28) == (18,)
    assert HoliTom().layers(24) == (15,)
    assert HoliTom(layer=5).layers(28) == (5,)
    assert HoliTom(layer=None).layers(28) == ()
    assert HoliTom().settings()["centre_weight"] == 0.6


@given(st.integers(1, 40), st.sampled_from([0.01, 0.3, 0.5, 1.0]), st.sampled_from(["halving", "mean"]))
def test_the_inner_stage_keeps_its_share_in_order(length, share, how):
    generator = torch.Generator().manual_seed(length)
    hidden, attention = torch.randn(length, 6, generator=generator), torch.rand(length, generator=generator)
    merge = HoliTom(inner_retention=share, inner_merge=how).merge_span(span(hidden, attention)).validate()
    assert merge.outputs == max(1, round(length * share))
    assert (merge.anchor.diff() > 0).all()
    assert (merge.target >= 0).all()
    assert set(merge.anchor.tolist()) == set(attention.topk(merge.outputs).indices.tolist())


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"retention": 0}, ValueError, r"retention .* \(0, 1\], got 0"),
        ({"retention": 1.2}, ValueError, "got 1.2"),
        ({"retention": "10%"}, TypeError, "HoliTom's retention must be a number, got '10%'"),
        ({"inner_retention": 2}, ValueError, "inner_retention .* got 2"),
        ({"similarity": 1.5}, ValueError, r"cosine and must lie in \[-1, 1\], got 1.5"),
        ({"layer": 0}, ValueError, "layer=0 is no inner layer: give an index from 1"),
        ({"layer": 1.5}, ValueError, "layer=1.5 is no inner layer"),
        ({"layer": "last"}, TypeError, "layer must be a number or an integer or none, got 'last'"),
        ({"centre_weight": -1}, ValueError, "centre_weight must lie in .* None for the plain mean; got -1"),
        ({"neighbours": 0}, ValueError, "neighbours=0"),
        ({"max_frames": 0}, ValueError, "max_frames=0"),
        ({"inner_merge": "sum"}, ValueError, "'halving' or 'mean', got 'sum'"),
    ],
)
def test_wrong_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        HoliTom(**settings)


def test_what_is_missing_is_named():
    video = VideoTokens(torch.randn(2, 4, 3), (2, 2))
    with pytest.raises(ValueError, match=r"HoliTom ranks .* patch scores, but this video has none: pass VideoTokens"):
        HoliTom().merge_video(video)
    with pytest.raises(ValueError, match="use exact=True"):
        HoliTom().token_count(2, (2, 2))
    with pytest.raises(ValueError, match=r"\(V, D\) and attention \(V,\), got \(3, 2\) and \(4,\)"):
        HoliTom().merge_span(span(torch.ones(3, 2), torch.ones(4)))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((torch.ones(2, 4, 3).long(), (2, 2)), TypeError, "floating point tensor .* got torch.int64"),
        ((torch.ones(4, 3), (2, 2)), ValueError, r"shape \(T, N, D\).* got \(4, 3\)"),
        ((torch.ones(0, 4, 3), (2, 2)), ValueError, "each at least 1"),
        ((torch.ones(2, 4, 3), (2, 3)), ValueError, r"grid \(2, 3\) has 6 positions, but features .* N = 4"),
        ((torch.ones(2, 4, 3), (2, 2), torch.ones(4)), ValueError, r"scores must start with .* got \(4,\)"),
        ((torch.ones(2, 4, 3), (2, 2), None, torch.ones(2, 4)), ValueError, "keys must start with"),
        ((torch.ones(2, 4, 3), (2, 2), None, None, torch.ones(3, 4)), ValueError, "frame_embeddings must start with"),
    ],
)
def test_video_tokens_name_what_does_not_fit(arguments, error, says):
    with pytest.raises(error, match=says):
        VideoTokens(*arguments)


def test_without_a_similarity_it_is_the_published_one_only_where_it_was_published() -> None:
    open_ = HoliTom(retention=0.2)
    assert open_.for_tower("llava_onevision/siglip_vision_model") == open_
    assert open_.for_tower("qwen2_5_vl/qwen2_5_vl_vision").similarity == "auto"
    assert HoliTom(similarity=0.9).for_tower("qwen2_5_vl/").similarity == 0.9
    chain = (open_ | FastV(layer=2)).for_tower("internvl/internvl_vision")
    assert chain.before.similarity == "auto"
    assert HoliTom(similarity="auto", retention=1.0).threshold == 1.0


def test_auto_does_not_see_a_common_mean_or_the_scale_of_features() -> None:
    """The same clip, seen by a tower whose neighbours all have a cosine near 1."""
    video = make_video(12, (5, 5), 96, 3, 0.2)
    common = torch.randn(96, generator=torch.Generator().manual_seed(1)) * 200
    other = dataclasses.replace(video, features=3 * video.features + common, scores=None)
    for exact in (False, True):
        auto = HoliTom(retention=0.2, similarity="auto", layer=None, exact=exact)
        ours, theirs = auto.merge_video(video).validate(), auto.merge_video(other).validate()
        assert ours.spans == theirs.spans
        assert ours.outputs == theirs.outputs
        same = set(ours.anchor.tolist()) & set(theirs.anchor.tolist())
        assert len(same) > 0.9 * ours.outputs  # rounding decides between a few cluster centres
    published = HoliTom(retention=0.2, layer=None)
    assert published.links(other.features).all()  # everything is static there, cuts included
    assert 0.3 < auto.links(other.features).float().mean() < 0.5


def test_what_ranks_can_be_chosen_apart_from_the_threshold() -> None:
    video = make_video(12, (5, 5), 40, 3, 0.4)
    bare = dataclasses.replace(video, scores=None)
    HoliTom(similarity=0.9, scores="spread").merge_video(bare).validate()
    with pytest.raises(ValueError, match="patch scores"):
        HoliTom(similarity="auto", scores="tower").merge_video(bare)
    single = VideoTokens(torch.randn(1, 9, 70), (3, 3))
    assert HoliTom(similarity="auto", exact=True, retention=0.5).merge_video(single).validate().outputs == 4
