"""Segmentation of a stream: optimal in each window, and never further from the global optimum than promised."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holitom import ops


@st.composite
def films(draw, longest=40, positions=5):
    """Links of random films, and of films made of scenes in which some positions stay the same throughout."""
    columns, rows = draw(st.integers(1, positions)), draw(st.integers(0, longest))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    if draw(st.booleans()):
        return torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.1, 0.5, 0.9, 0.99]))
    links, at = torch.zeros(rows, columns, dtype=torch.bool), 0
    while at < rows:
        length = draw(st.integers(1, 20))
        links[at : at + length] = torch.rand(columns, generator=generator) < draw(st.floats(0, 1))
        at += length + draw(st.integers(0, 1))
    return links


def chunked(links, sizes):
    """The links in pieces of the given sizes, over and over."""
    at, sizes = 0, itertools.cycle(sizes)
    while at < len(links):
        size = next(sizes)
        yield links[at : at + size]
        at += size


chunks = st.lists(st.integers(1, 25), min_size=1, max_size=4)
windows = st.integers(1, 16)


@given(films(), windows, chunks)
def test_every_window_is_the_global_optimum_of_its_frames(links, window, sizes):
    found = list(ops.segment_stream(chunked(links, sizes), window))
    assert [frame for each in found for frame in range(each.first, each.last + 1)] == list(range(len(links) + 1))
    for each in found:
        alone = ops.segment(links[each.first : each.last])
        assert each.cut.spans == [(first + each.first, last + each.first) for first, last in alone.spans]
        assert each.cut.gains == alone.gains
        assert each.frames <= window
        assert each.at_stake == (int(links[each.last].sum()) if each.last < len(links) else 0)
    assert all(each.frames > window // 2 for each in found[:-1])


@given(films(), windows, chunks, st.data())
def test_the_bound_against_the_global_optimum(links, window, sizes, data):
    shortest = data.draw(st.integers(1, window))
    found = list(ops.segment_stream(chunked(links, sizes), window, shortest))
    best, reached = ops.segment(links).redundant, sum(each.cut.redundant for each in found)
    assert best - sum(each.at_stake for each in found) <= reached <= best


@given(films(longest=120), st.integers(5, 24))
def test_a_share_of_the_optimum_is_certain_whatever_the_film(links, window):
    reached = sum(each.cut.redundant for each in ops.segment_stream([links], window))
    assert reached >= (1 - 2 / math.ceil(window / 2)) * ops.segment(links).redundant - 1e-9


@given(films(), windows, chunks, chunks)
def test_how_the_links_arrive_does_not_matter(links, window, sizes, others):
    assert list(ops.segment_stream(chunked(links, sizes), window)) == list(
        ops.segment_stream(chunked(links, others), window)
    )


@given(films(), chunks)
def test_one_window_is_the_global_optimum(links, sizes):
    [only] = ops.segment_stream(chunked(links, sizes), len(links) + 1)
    assert only.cut == ops.segment(links)
    assert only.at_stake == 0


@given(st.lists(st.integers(1, 8), min_size=1, max_size=12), st.integers(0, 2**16))
def test_nothing_is_lost_where_scenes_are_at_most_half_a_window(scenes, seed):
    """Cuts at most ceil(W / 2) frames apart: every window finds one to end at."""
    generator = torch.Generator().manual_seed(seed)
    links = torch.rand(sum(scenes) - 1, 4, generator=generator) < 0.7
    for end in itertools.accumulate(scenes[:-1]):
        links[end - 1] = False
    reached = sum(each.cut.redundant for each in ops.segment_stream([links], 16))
    assert reached == ops.segment(links).redundant


def test_the_bound_is_met_where_everything_is_static():
    links = torch.ones(99, 7, dtype=torch.bool)
    found = list(ops.segment_stream([links], 10))
    assert len(found) == 10
    lost = ops.segment(links).redundant - sum(each.cut.redundant for each in found)
    assert lost == sum(each.at_stake for each in found) == 9 * 7


def test_windows_of_one_length_may_lose_all_and_movable_ones_do_not():
    links = torch.zeros(95, 3, dtype=torch.bool)
    links[7::8] = True  # two equal frames at every eighth border
    assert ops.segment(links).redundant == 33
    assert sum(each.cut.redundant for each in ops.segment_stream([links], 8, shortest=8)) == 0
    assert sum(each.cut.redundant for each in ops.segment_stream([links], 8)) == 33


@pytest.mark.parametrize("frames", [21, 201])
def test_no_look_ahead_is_enough_to_be_exact(frames):
    """All static runs are one link long, and yet the best first cut depends on the last frame."""
    links = torch.zeros(frames - 1, 11, dtype=torch.bool)
    links[0::2, :5] = True
    links[1::2, 5:10] = True
    links[1, 10] = True
    assert not (links[1:] & links[:-1]).any()
    assert frames % 2
    assert ops.segment(links).spans[0] == (0, 0)
    assert ops.segment(links[:-1]).spans[0] == (0, 1)


@given(films(), windows)
def test_the_stream_adds_up_and_holds_no_more_than_a_window(links, window):
    stream = ops.SegmentStream(window)
    found = []
    for row in links.split(1) if len(links) else []:
        found += stream.push(row)
        assert stream._links is None or len(stream._links) < window
    found += stream.finish()
    assert stream.redundant == sum(each.cut.redundant for each in found)
    assert stream.at_stake == sum(each.at_stake for each in found)


@given(films(), windows, st.integers(1, 5))
def test_the_longest_segment_holds_in_windows_too(links, window, longest):
    for each in ops.segment_stream([links], window, max_frames=longest):
        assert all(last - first < longest for first, last in each.cut.spans)


def test_misuse_is_explained():
    with pytest.raises(ValueError, match="window=0 is no number of frames"):
        ops.SegmentStream(0)
    with pytest.raises(ValueError, match=r"shortest=9 must lie in 1\.\.8"):
        ops.SegmentStream(8, 9)
    with pytest.raises(ValueError, match="max_frames=0 is no segment length"):
        ops.SegmentStream(8, max_frames=0)
    stream = ops.SegmentStream(8)
    with pytest.raises(TypeError, match=r"bool tensors .* got torch.float32"):
        stream.push(torch.ones(2, 3))
    stream.push(torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"shape \(t, 3\).* got \(2, 4\)"):
        stream.push(torch.ones(2, 4, dtype=torch.bool))
    stream.finish()
    with pytest.raises(ValueError, match="has been finished"):
        stream.push(torch.ones(2, 3, dtype=torch.bool))
