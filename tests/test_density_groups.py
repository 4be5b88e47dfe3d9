"""Groups that are clustered together, padded, are clustered as each by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holitom.ops import density_groups
from holitom.ops.density_groups import Group, cluster_groups, cluster_padded


@st.composite
def groups(draw):
    found = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.integers(1, 20))
        centres = draw(st.integers(1, size))
        found.append(Group(size, centres, draw(st.integers(1, centres + 2))))
    return found


def same(want, got):
    assert got.number.tolist() == want.number.tolist()
    assert got.centre.tolist() == want.centre.tolist()
    torch.testing.assert_close(got.share, want.share)


@given(groups(), st.integers(0, 1000), st.sampled_from([1, 3, 16]), st.booleans(), st.sampled_from([None, 0.6]))
def test_padded_groups_equal_each_alone(found, seed, width, ascending, centre_weight):
    x = torch.randn(sum(group.size for group in found), width, generator=torch.Generator().manual_seed(seed))
    x[::7] *= 0.1
    options = {"ascending": ascending, "centre_weight": centre_weight}
    same(cluster_groups(x, found, **options), cluster_padded(x, found, **options))


@pytest.mark.parametrize("limit", [1, 4 * 8 * 12, 1 << 20])
def test_no_more_than_the_limit_is_padded_at_a_time(limit, monkeypatch):
    found = [Group(size, max(1, size // 3), 3) for size in (5, 12, 3, 9, 12)]
    x = torch.randn(sum(group.size for group in found), 8, generator=torch.Generator().manual_seed(0))
    want = cluster_padded(x, found)
    monkeypatch.setattr(density_groups, "_PADDED_BYTES", limit)
    got = cluster_padded(x, found)
    same(want, got)


def test_of_equal_points_the_first_lead():
    found = [Group(4, 2, 2), Group(5, 3, 3)]
    clusters = cluster_padded(torch.ones(9, 4), found)
    same(cluster_groups(torch.ones(9, 4), found), clusters)
    assert clusters.centre.tolist() == [0, 1, 4, 5, 6]


def test_shares_add_up_to_one():
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    for centre_weight in (None, 0.6):
        clusters = cluster_padded(x, [Group(14, 3, 5), Group(16, 9, 4)], centre_weight=centre_weight)
        total = torch.zeros(12).index_add_(0, clusters.number, clusters.share)
        torch.testing.assert_close(total, torch.ones(12))


def test_nothing_waits_for_the_device():
    clusters = cluster_padded(torch.empty(9, 4, device="meta"), [Group(4, 2, 2), Group(5, 3, 3)])
    assert clusters.number.shape == clusters.share.shape == (9,)
    assert clusters.centre.shape == (5,)
