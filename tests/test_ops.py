"""The pure algorithms against what their definitions say, computed the slow way."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom import ops
from holitom.edges import sums_in_order
from holitom.ops.inner import halving_weights, mean_weights, nearest_kept, split_by_rank
from holitom.ops.similarity import products
from holitom.tokens import exact_count, largest_remainder


@st.composite
def link_maps(draw, frames=7, positions=4):
    rows, columns = draw(st.integers(0, frames - 1)), draw(st.integers(1, positions))
    cells = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(cells, dtype=torch.bool).view(rows, columns)


def gain(links, first, last):
    return (last - first) * int(links[first:last].all(0).sum()) if last > first else 0


def best_cut(links, longest):
    """The largest total gain over every cut of the frames, by trying them all."""
    frames, best = len(links) + 1, 0
    for cuts in itertools.product([False, True], repeat=frames - 1):
        edges = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), frames]
        spans = [(a, b - 1) for a, b in itertools.pairwise(edges)]
        if all(b - a < longest for a, b in spans):
            best = max(best, sum(gain(links, a, b) for a, b in spans))
    return best


@given(link_maps(), st.integers(1, 8))
def test_segmentation_is_the_global_optimum(links, longest):
    cut = ops.segment(links, longest)
    assert cut.redundant == best_cut(links, longest)
    assert [frame for first, last in cut.spans for frame in range(first, last + 1)] == list(range(len(links) + 1))
    assert cut.gains == [gain(links, *span) for span in cut.spans]
    assert all(last - first < longest for first, last in cut.spans)


@given(link_maps())
def test_segmentation_is_deterministic_and_needs_no_limit(links):
    assert ops.segment(links) == ops.segment(links.clone(), len(links) + 1)


@pytest.mark.parametrize(
    ("links", "longest", "error", "says"),
    [
        (torch.ones(2, 3), None, TypeError, "bool tensor .* got torch.float32"),
        ([[True]], None, TypeError, "got list"),
        (torch.ones(3, dtype=torch.bool), None, ValueError, r"shape \(T-1, N\).* got \(3,\)"),
        (torch.ones(2, 3, dtype=torch.bool), 0, ValueError, "max_frames=0 is no segment length"),
    ],
)
def test_segmentation_explains_misuse(links, longest, error, says):
    with pytest.raises(error, match=says):
        ops.segment(links, longest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (4, 1, 7), (5, 6, 700)])
def test_neighbour_cosine(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    want = torch.nn.functional.cosine_similarity(x[1:].double(), x[:-1].double(), dim=-1).float()
    got = ops.neighbour_cosine(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert got.abs().max() <= 1 if got.numel() else True


def test_neighbour_cosine_of_frames_further_apart():
    x = torch.randn(7, 4, 33, generator=torch.Generator().manual_seed(1))
    for step in (2, 3, 7):
        want = torch.nn.functional.cosine_similarity(x[step:], x[:-step], dim=-1)
        torch.testing.assert_close(ops.neighbour_cosine(x, step=step), want)


@pytest.mark.parametrize("rows", [0, 1, 2, 48, 49, 97, 150])
def test_products_of_rows_are_symmetric(rows):
    x = torch.randn(rows, 400, generator=torch.Generator().manual_seed(rows))
    got = products(x)
    assert torch.equal(got, got.T)
    torch.testing.assert_close(got, x @ x.T, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("edges", [0, 1, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [9, 300])
def test_sums_in_order(edges, dtype, width):
    """Some of the 30 outputs have no edges; what is not finite stays where it goes."""
    random = torch.Generator().manual_seed(edges)
    rows, weight = torch.randn(50, width, generator=random).to(dtype), torch.rand(edges, generator=random)
    source, output = torch.randint(49, (edges,), generator=random), torch.randint(30, (edges,), generator=random)
    rows[49], output = torch.nan, output.sort().values
    got = sums_in_order(rows, source, output, weight, 30)
    want = torch.zeros(30, width, dtype=torch.float64)
    want.index_add_(0, output, rows[source].double() * weight.double()[:, None])
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    learned = rows.float().requires_grad_()
    sums_in_order(learned, source, output, weight, 30).sum().backward()
    torch.testing.assert_close(learned.grad[:, 0], torch.zeros(50).index_add_(0, source, weight))


def test_identical_frames_are_static_below_one_and_never_at_one():
    frame = torch.randn(1, 50, 333).expand(3, -1, -1)
    assert ops.static_links(frame, 0.9999).all()
    assert not ops.static_links(frame, 1.0).any()
    assert not ops.static_links(torch.zeros(3, 2, 4), 0.0).any()


def peaks(x, centres, neighbours):
    """As HoliTom finds them: with at most as many neighbours as centres."""
    return ops.DensityPeaks.of(x, centres, min(neighbours, centres)).centres.tolist()


def slow_density_peaks(x, centres, neighbours):
    x, count = x.double(), len(x)
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    k = min(neighbours, centres)
    rho = [float(torch.exp(-d[i].sort().values[:k].square().mean())) for i in range(count)]
    score = []
    for i in range(count):
        denser = [float(d[i, j]) for j in range(count) if rho[j] > rho[i] or (rho[j] == rho[i] and j < i)]
        score.append(rho[i] * (min(denser) if denser else float(d.max())))
    return sorted(sorted(range(count), key=lambda i: (-score[i], i))[:centres])


@given(st.integers(1, 30), st.integers(0, 1000), st.data())
def test_density_peaks_follow_their_definition(count, seed, data):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    centres = data.draw(st.integers(1, count))
    neighbours = data.draw(st.integers(1, 9))
    if min(neighbours, centres) == 2:
        return  # mutual nearest neighbours are equally dense up to rounding
    assert peaks(x, centres, neighbours) == slow_density_peaks(x, centres, neighbours)


def test_equal_density_prefers_the_lower_index():
    assert peaks(torch.zeros(6, 3), 2, 7) == [0, 1]
    assert peaks(torch.randn(9, 3), 9, 7) == list(range(9))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=9), st.data())
def test_rankings_take_the_lower_index_of_equals(values, data):
    scores, keep = torch.tensor(values), data.draw(st.integers(0, len(values)))
    want = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:keep])
    assert ops.top_indexes(scores, keep).tolist() == want
    assert ops.keep_top(scores[None], torch.tensor([keep]))[0].nonzero()[:, 0].tolist() == want
    kept, dropped = split_by_rank(scores, keep)
    assert kept.tolist() == want
    assert dropped.tolist() == [i for i in range(len(values)) if i not in want]


@given(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=12), st.integers(0, 99))
def test_halving_is_averaging_one_after_the_other(kept, joins, seed):
    joins = torch.tensor([join % kept for join in joins], dtype=torch.long)
    x = torch.randn(kept + len(joins), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    want = x[:kept].clone()
    for member, join in enumerate(joins.tolist()):
        want[join] = (want[join] + x[kept + member]) / 2
    for weigh, expected in ((halving_weights, want), (mean_weights, None)):
        own, theirs = weigh(joins, kept)
        got = x[:kept] * own[:, None].double()
        got.index_add_(0, joins, x[kept:] * theirs[:, None].double())
        if expected is None:
            groups = [torch.cat([x[:kept][[k]], x[kept:][joins == k]]).mean(0) for k in range(kept)]
            expected = torch.stack(groups)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_nearest_kept_looks_both_ways():
    hidden = torch.eye(4)[[0, 1, 2, 1, 0]] + 0.01
    assert nearest_kept(hidden, torch.tensor([1, 2, 4]), torch.tensor([0, 3])).tolist() == [2, 0]


def test_query_attention_with_grouped_heads():
    query, key = torch.randn(4, 3, 8), torch.randn(2, 7, 8)
    valid = torch.tensor([False] * 2 + [True] * 5)
    want = (query @ key.repeat_interleave(2, 0).transpose(1, 2) * 0.5).masked_fill(~valid, -torch.inf).softmax(-1)
    torch.testing.assert_close(ops.query_attention(query, key, 0.5, valid), want)
    torch.testing.assert_close(ops.last_query_attention(query[:, 2], key, 0.5, valid), want[:, 2].mean(0))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(0, 1))
@settings(max_examples=200)
def test_largest_remainder_is_exact_and_fair(sizes, share):
    sizes = torch.tensor(sizes)
    total = int(int(sizes.sum()) * share)
    parts = largest_remainder(sizes, total)
    assert int(parts.sum()) == total
    assert ((parts >= 0) & (parts <= sizes)).all()
    ideal = sizes.double() * total / max(1, int(sizes.sum()))
    assert (parts - ideal).abs().max() < 1


@given(st.integers(1, 40), st.integers(1, 15), st.integers(1, 15), st.floats(0.001, 1))
def test_the_exact_count_is_within_half_a_token_of_the_share(frames, rows, columns, share):
    count, total = exact_count(frames, (rows, columns), share), frames * rows * columns
    assert 1 <= count <= total
    assert count == 1 or abs(count - total * share) <= 0.5 + 1e-9


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True, "0.1", None])
def test_shares_are_checked(share):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got"):
        exact_count(2, (2, 2), share)
