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


@given(groups(), st.integers(0, 1000), st.sampled_from([1, 3, 16]))
def test_padded_groups_equal_each_alone(found, seed, width):
    x = torch.randn(sum(group.size for group in found), width, generator=torch.Generator().manual_seed(seed))
    x[::7] *= 0.1
    want, got = cluster_groups(x, found), cluster_padded(x, found)
    assert got[0].tolist() == want[0].tolist()
    assert got[1].tolist() == want[1].tolist()
    assert [int(part.sum()) for part in got[1].split([group.size for group in found])] == [g.centres for g in found]


@pytest.mark.parametrize("limit", [1, 4 * 8 * 12, 1 << 20])
def test_no_more_than_the_limit_is_padded_at_a_time(limit, monkeypatch):
    found = [Group(size, max(1, size // 3), 3) for size in (5, 12, 3, 9, 12)]
    x = torch.randn(sum(group.size for group in found), 8, generator=torch.Generator().manual_seed(0))
    want = cluster_padded(x, found)
    monkeypatch.setattr(density_groups, "_PADDED_BYTES", limit)
    got = cluster_padded(x, found)
    assert got[0].tolist() == want[0].tolist()
    assert got[1].tolist() == want[1].tolist()


def test_of_equal_points_the_first_lead():
    cluster, leads = cluster_padded(torch.ones(9, 4), [Group(4, 2, 2), Group(5, 3, 3)])
    want, own = cluster_groups(torch.ones(9, 4), [Group(4, 2, 2), Group(5, 3, 3)])
    assert cluster.tolist() == want.tolist()
    assert leads.tolist() == own.tolist()


def test_nothing_waits_for_the_device():
    cluster, leads = cluster_padded(torch.empty(9, 4, device="meta"), [Group(4, 2, 2), Group(5, 3, 3)])
    assert cluster.shape == leads.shape == (9,)
