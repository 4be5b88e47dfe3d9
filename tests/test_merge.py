"""Merge: what holds for every map from sources to outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holitom import Merge


@st.composite
def merges(draw, sources=None, shared=False):
    """Maps whose weights sum to 1, with dropped sources; optionally with sources that feed several outputs."""
    count = draw(st.integers(1, 12)) if sources is None else sources
    outputs = draw(st.integers(1, count))
    anchors = draw(st.permutations(range(count)))[:outputs]
    target = [draw(st.integers(-1, outputs - 1)) for _ in range(count)]
    for output, anchor in enumerate(anchors):
        target[anchor] = output
    raw = torch.tensor([draw(st.floats(0.1, 1)) for _ in range(count)])
    target, anchors = torch.tensor(target), torch.tensor(anchors)
    if not shared:
        sums = torch.zeros(outputs).index_add_(0, target.clamp(min=0), raw * (target >= 0))
        return Merge(target, raw / sums[target.clamp(min=0)], anchors)
    edges = {(s, int(t)) for s, t in enumerate(target) if t >= 0}
    edges |= set(draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, outputs - 1)), max_size=6)))
    source, output = (torch.tensor(column) for column in zip(*sorted(edges), strict=True))
    sums = torch.zeros(outputs).index_add_(0, output, raw[source])
    return Merge.from_edges(source, output, raw[source] / sums[output], anchors, count)


def matrix(merge):
    """(M, S) float64: the map as a matrix, edge by edge."""
    dense = torch.zeros(merge.outputs, merge.inputs, dtype=torch.float64)
    for source, output, weight in zip(*(edge.tolist() for edge in merge.edges()), strict=True):
        dense[output, source] += weight
    return dense


@given(st.one_of(merges(), merges(shared=True)))
def test_apply_is_the_weighted_sum(merge):
    x = torch.randn(merge.inputs, 3, dtype=torch.float64)
    torch.testing.assert_close(merge.validate().apply(x), matrix(merge) @ x, atol=1e-6, rtol=1e-6)


@given(merges())
def test_each_source_is_in_at_most_one_output_and_weights_sum_to_one(merge):
    assert (matrix(merge) > 0).sum(0).max() <= 1
    torch.testing.assert_close(matrix(merge).sum(1), torch.ones(merge.outputs, dtype=torch.float64), atol=1e-5, rtol=0)


@given(st.data(), st.booleans())
def test_compose_is_one_after_the_other(data, shared):
    first = data.draw(merges(shared=shared))
    second = data.draw(merges(sources=first.outputs, shared=shared))
    both = first.compose(second).validate()
    torch.testing.assert_close(matrix(both), matrix(second) @ matrix(first), atol=1e-6, rtol=0)
    assert torch.equal(both.anchor, first.anchor[second.anchor])


@given(merges())
def test_identity_is_neutral(merge):
    for both in (Merge.identity(merge.inputs).compose(merge), merge.compose(Merge.identity(merge.outputs))):
        assert torch.equal(both.target, merge.target)
        assert torch.equal(both.anchor, merge.anchor)
        assert torch.equal(matrix(both), matrix(merge))


@given(st.one_of(merges(), merges(shared=True)))
def test_sources_tell_where_an_output_comes_from(merge):
    for output in range(merge.outputs):
        source, weight = merge.sources(output)
        assert (source.diff() > 0).all()
        assert int(merge.anchor[output]) in source.tolist()
        torch.testing.assert_close(matrix(merge)[output, source].float(), weight)
        assert (matrix(merge)[output] > 0).sum() == len(source)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_in_is_dtype_out_and_lone_sources_keep_every_bit(dtype):
    merge = Merge(torch.tensor([1, 0, 0, -1]), torch.tensor([1, 0.25, 0.75, 0]), torch.tensor([2, 0]))
    x = torch.randn(4, 2, 5).to(dtype)
    out = merge.apply(x)
    assert out.dtype == dtype
    assert out.shape == (2, 2, 5)
    assert torch.equal(out[1], x[0])
    want = (0.25 * x[1].double() + 0.75 * x[2].double()).to(dtype)
    torch.testing.assert_close(out[0], want)


def test_half_precision_is_accumulated_in_float32():
    count = 4096
    merge = Merge(torch.zeros(count, dtype=torch.long), torch.full((count,), 1 / count), torch.tensor([0]))
    x = torch.full((count, 1), 1.0, dtype=torch.bfloat16)
    assert merge.apply(x).item() == 1.0


def test_keep_and_gather():
    merge = Merge.keep(torch.tensor([4, 1]), 6)
    x = torch.arange(6)
    assert merge.apply(x.float()).tolist() == [4.0, 1.0]
    assert merge.gather(x).tolist() == [4, 1]
    assert merge.retention == pytest.approx(1 / 3)
    assert repr(merge) == "Merge(6 -> 2 tokens, 33.3%)"


def test_empty_maps():
    nothing = Merge.keep(torch.tensor([], dtype=torch.long), 3)
    assert nothing.apply(torch.ones(3, 2)).shape == (0, 2)
    assert nothing.compose(Merge.identity(0)).outputs == 0
    assert Merge.identity(0).apply(torch.ones(0, 2)).shape == (0, 2)


GOOD = {"target": torch.tensor([0, 0]), "weight": torch.tensor([0.5, 0.5]), "anchor": torch.tensor([0])}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"target": torch.tensor([0, 0], dtype=torch.int32)}, TypeError, r"target .* int64, got torch.int32"),
        ({"anchor": torch.tensor([[0]])}, ValueError, r"anchor must have one dimension, got shape \(1, 1\)"),
        ({"weight": torch.tensor([1.0])}, ValueError, r"one value per source: expected shape \(2,\), got \(1,\)"),
        ({"weight": torch.tensor([1, 1])}, TypeError, r"weight must be floating point, got torch.int64"),
        ({"weight": torch.ones(2, device="meta")}, ValueError, "one device"),
    ],
)
def test_construction_names_what_does_not_fit(change, error, says):
    with pytest.raises(error, match=says):
        Merge(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": torch.tensor([0, 3])}, r"must lie in -1\.\.0, got values from 0 to 3"),
        ({"anchor": torch.tensor([5])}, r"must name sources 0\.\.1"),
        ({"weight": torch.tensor([0.5, 0.1])}, r"weights of output 0 sum to 0\.600000, expected 1"),
        ({"weight": torch.tensor([0.5, torch.inf])}, "not finite"),
        ({"target": torch.tensor([-1, 0])}, "output 0: its anchor 0 is not one of its sources"),
    ],
)
def test_validate_names_what_is_wrong(change, says):
    with pytest.raises(ValueError, match=says):
        Merge(**{**GOOD, **change}).validate()


def test_misuse_is_explained():
    merge = Merge(**GOOD)
    with pytest.raises(ValueError, match="maps 2 source tokens, got 3 rows"):
        merge.apply(torch.ones(3, 4))
    with pytest.raises(ValueError, match="1 outputs do not fit the 2 sources of the next map"):
        merge.compose(merge)
    with pytest.raises(IndexError, match=r"output 1 does not exist: this Merge has outputs 0\.\.0"):
        merge.sources(1)
    with pytest.raises(TypeError, match=r"int64 indexes, got torch.bool"):
        Merge.keep(torch.tensor([True]), 1)


def test_a_source_named_twice_or_miscounted_is_found():
    with pytest.raises(ValueError, match="anchor 1 is not one of its sources"):
        Merge.keep(torch.tensor([1, 1]), 4).validate()


def test_expand_gives_every_source_its_row_back() -> None:
    merge = Merge(torch.tensor([0, 1, 0]), torch.tensor([0.5, 1.0, 0.5]), torch.tensor([0, 1]))
    rows = torch.tensor([[1.0], [2.0]])
    assert merge.expand(rows).tolist() == [[1.0], [2.0], [1.0]]
    with pytest.raises(ValueError, match="expand 3 rows"):
        merge.expand(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="each source"):
        Merge.keep(torch.tensor([0]), 2).expand(torch.zeros(1, 1))
    shared = Merge.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.ones(2), torch.tensor([0, 0]), 1)
    with pytest.raises(ValueError, match="one output"):
        shared.expand(torch.zeros(2, 1))
