"""Renewal: which patches of a video keep their row of the vision tower, against a loop over frames and patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from holitom.methods import Renewal
from holitom.ops import renewal as ops
from holitom.tokens import TowerStates

GRID = (4, 5)


def states_of(hidden: Tensor, grid: tuple[int, int] = GRID, **fields: object) -> TowerStates:
    return TowerStates(hidden, 1, 26, grid, **fields)


def scene(frames: int, seed: int = 0, noise: float = 0.02, moving: int = 6) -> Tensor:
    """(T, 20, 8): most patches stay, the last ``moving`` drift."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, 20, 8, generator=random).repeat(frames, 1, 1)
    if moving:
        hidden[:, -moving:] += torch.randn(frames, moving, 8, generator=random).cumsum(0) * 0.4
    return hidden + noise * torch.randn(frames, 20, 8, generator=random)


def begins_by_hand(hidden: Tensor, threshold: float, guard: int, max_frames: int = 32) -> list[list[int]]:
    """Frame by frame, patch by patch, from the definition."""
    hidden = hidden.double()
    spread = (hidden - hidden.mean(1, keepdim=True)).square().sum(-1).mean()
    frames, (rows, columns) = len(hidden), GRID
    begin = [0] * 20
    found = [list(begin)]
    for now in range(1, frames):
        fresh = now % max_frames == 0
        moved = [
            float((hidden[now, p] - hidden[begin[p], p]).square().sum() / (2 * spread)) > threshold or fresh
            for p in range(20)
        ]
        for p in range(20):
            y, x = divmod(p, columns)
            near = [
                (y + dy) * columns + x + dx
                for dy in range(-guard, guard + 1)
                for dx in range(-guard, guard + 1)
                if 0 <= y + dy < rows and 0 <= x + dx < columns
            ]
            if any(moved[other] for other in near):
                begin[p] = now
        found.append(list(begin))
    return found


def begins_of(merge, frames: int, patches: int = 20) -> list[list[int]]:
    target = merge.target.view(frames, patches)
    return [[int((target[:, p] == target[t, p]).nonzero()[0]) for p in range(patches)] for t in range(frames)]


@given(
    st.integers(2, 12),
    st.integers(0, 50),
    st.sampled_from([0, 1, 2]),
    st.floats(0.02, 0.6),
    st.sampled_from([3, 5, 32]),
)
def test_each_patch_keeps_its_row_until_it_differs_from_where_the_row_began(frames, seed, guard, change, max_frames):
    hidden = scene(frames, seed, moving=3)
    method = Renewal(change=change, guard=guard, noise=0, max_frames=max_frames)
    merge = method.merge_tower(states_of(hidden)).validate()
    want = begins_by_hand(hidden, change, guard, max_frames)
    rows = sum(begin == now for now, line in enumerate(want) for begin in line)
    if rows > 0.9 * frames * 20:
        assert merge.outputs == merge.inputs
        return
    assert begins_of(merge, frames) == want
    for row in range(merge.outputs):
        sources, weights = merge.sources(row)
        assert int(merge.anchor[row]) == int(sources[(len(sources) - 1) // 2])
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(sources)))
    assert merge.anchor.tolist() == sorted(merge.anchor.tolist())


def test_equal_frames_become_one_row_a_patch_and_come_back_as_they_were():
    hidden = torch.randn(1, 20, 8).repeat(9, 1, 1)
    for method in (Renewal(), Renewal(change=0), Renewal(cut="segments"), Renewal(budget=0.2)):
        merge = method.merge_tower(states_of(hidden)).validate()
        assert merge.outputs == 20
        torch.testing.assert_close(
            merge.expand(merge.apply(hidden.flatten(0, 1))), hidden.flatten(0, 1), atol=1e-6, rtol=0
        )


def test_without_change_only_equal_patches_keep_their_row():
    hidden = scene(8, noise=1e-4)
    assert Renewal(change=0).merge_tower(states_of(hidden)).outputs == 160
    hidden[:, :10] = hidden[:1, :10]
    hidden[5, 3] += 1e-6 * hidden[5, 3].abs() + 1e-6
    merge = Renewal(change=0, guard=0).merge_tower(states_of(hidden))
    begins = np.array(begins_of(merge, 8))
    assert (begins[:, :3] == 0).all()
    assert begins[:, 3].tolist() == [0, 0, 0, 0, 0, 5, 6, 6]
    assert (begins[:, 10:] == np.arange(8)[:, None]).all()


def test_a_class_token_and_the_order_of_a_tower():
    """Places are what counts: a tower that works in another order, with a class token, gets the same rows."""
    hidden = scene(7, 3)
    plain = Renewal(layer=1).merge_tower(states_of(hidden))
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(20)])
    with_class = torch.cat([torch.zeros(7, 1, 8), hidden], 1)
    merge = Renewal().merge_tower(states_of(with_class[:, order], leading=1, order=order)).validate()
    begins = np.array(begins_of(merge, 7, 21))
    placed = np.empty_like(begins)
    placed[:, order.numpy()] = begins
    assert placed[:, 0].tolist() == list(range(7))  # although it never changes
    assert placed[:, 1:].tolist() == begins_of(plain, 7)
    assert 7 + plain.outputs == merge.outputs < 0.8 * merge.inputs


def test_the_noise_of_a_camera_is_measured_and_allowed_for_up_to_a_limit():
    noisy = scene(12, noise=0.35, moving=0)
    floor = ops.noise_floor(ops.patch_distances(noisy, 32))
    assert 0.05 < floor < 1
    rows = [Renewal(change=0.02, guard=0, noise=noise).merge_tower(states_of(noisy)).outputs for noise in (0, 0.3)]
    assert rows[1] < rows[0] / 2
    drifting = torch.randn(1, 20, 8) + torch.randn(12, 20, 8).mean(1, keepdim=True).cumsum(0)
    assert ops.noise_floor(ops.patch_distances(drifting, 32)) < floor / 2
    assert ops.noise_floor(ops.patch_distances(noisy[:2], 32)) == 0


def test_a_budget_is_met_by_the_smallest_distance_but_not_at_any_price():
    hidden = scene(16, 1)
    for budget in (0.3, 0.5, 0.8):
        assert Renewal(budget=budget, guard=0).merge_tower(states_of(hidden)).retention <= budget
    unrelated = torch.randn(16, 20, 8)
    assert Renewal(budget=0.1).merge_tower(states_of(unrelated)).outputs == 320  # stands aside


def test_segments_hold_patches_near_their_mean():
    """A slow drift is a chain of small links: without the check it would be one row."""
    hidden = torch.randn(1, 20, 8).repeat(10, 1, 1)
    hidden[:, 7] += torch.linspace(0, 3, 10)[:, None]
    merge = Renewal(cut="segments", guard=0, noise=0).merge_tower(states_of(hidden)).validate()
    begins = np.array(begins_of(merge, 10))
    assert begins[:, 7].tolist() == list(range(10))
    assert (np.delete(begins, 7, 1) == 0).all()


def test_half_precision_and_one_frame():
    hidden = scene(6).to(torch.bfloat16)
    assert Renewal().merge_tower(states_of(hidden)).outputs < 100
    assert Renewal().merge_tower(states_of(hidden[:1])).outputs == 20
    still = torch.ones(4, 20, 8)  # no patch differs from another
    assert Renewal().merge_tower(states_of(still)).outputs == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"change": -0.1}, r"change is a distance.*-0.1"),
        ({"noise": 2}, r"noise adds to change.*2"),
        ({"budget": 0}, r"budget is the share.*0"),
        ({"guard": -1}, "guard must be at least 0, got -1"),
        ({"max_frames": 0}, "max_frames must be at least 1, got 0"),
        ({"cut": "scenes"}, "cut must be 'positions' or 'segments', got 'scenes'"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Renewal(**settings)


def test_a_tower_without_that_block_is_refused():
    with pytest.raises(ValueError, match=r"layer=9.*blocks 0\.\.8"):
        Renewal(layer=9).tower_layers(9)
    with pytest.raises(TypeError, match=r"layer must be an integer, got 0\.1"):
        Renewal(layer=0.1)
