"""STTM: the official code's outputs, with its bugs put back, and what holds without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import TOLERANCE, Case, cases, span

from holitom.methods.sttm import STTM
from holitom.ops.quadtree import levels, over_children, parents


class OfficialSTTM(STTM):
    """The official code's two bugs: odd borders compare with the frame's first child, and joining ends early."""

    def _uniform(self, coarse, fine):
        whole = super()._uniform(coarse, fine)
        corner = self._cosine(coarse, fine[:, :1, :1].expand_as(coarse)) >= self.threshold
        odd = torch.zeros_like(whole)
        if fine.shape[1] % 2:
            odd[:, 0] = True
        if fine.shape[2] % 2:
            odd[:, :, 0] = True
        return whole & (corner | ~odd)

    def _unite(self, total, one, other):
        least = np.arange(total)
        while True:
            met = np.minimum(least[one], least[other])
            np.minimum.at(least, one, met)
            np.minimum.at(least, other, met)
            least = least[least]
            if (least == least[least]).all():
                return least


def method_of(case: Case, cls: type[STTM]) -> STTM:
    names = ("threshold", "root_level", "weighted", "head_dim")
    over_time = case.params["temporal_threshold"]
    return cls(temporal_threshold=over_time if over_time > 0 else None, **{name: case.params[name] for name in names})


@pytest.mark.parametrize("case", cases("sttm"), ids=repr)
def test_the_official_outputs(case: Case):
    grid = (case.params["H"], case.params["W"])
    merge = method_of(case, OfficialSTTM).merge_span(span(case.hidden, None, frames=case.params["T"], grid=grid))
    assert merge.anchor.tolist() == case.index.tolist()
    assert torch.bincount(merge.target).tolist() == case.patches.tolist()
    torch.testing.assert_close(merge.apply(case.hidden), case.out, atol=TOLERANCE, rtol=0)
    merge.validate()


def clip(frames: int, grid: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A still scene of four flat quarters, one of which is noise of its own in every frame."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = grid
    quarter = torch.randn(2, 2, 32, generator=random)
    scene = quarter[torch.arange(rows) * 2 // rows][:, torch.arange(columns) * 2 // columns].repeat(frames, 1, 1, 1)
    noise = torch.randn(frames, rows, columns, 32, generator=random)
    scene[:, : rows // 2, : columns // 2] = noise[:, : rows // 2, : columns // 2]
    return scene.view(-1, 32)


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (6, 10), (9, 5), (2, 2), (1, 3), (1, 1)])
def test_flat_squares_become_one_token_and_noise_stays(grid: tuple[int, int]):
    hidden = clip(4, grid)
    merge = STTM().merge_span(span(hidden, None, frames=4, grid=grid)).validate()
    noisy = 4 * (grid[0] // 2) * (grid[1] // 2)
    assert noisy <= merge.outputs < max(len(hidden), 2)
    assert merge.anchor.tolist() == sorted(merge.anchor.tolist())


def test_every_linked_node_joins():
    """A large node and the four small ones that it covers a frame earlier, all alike: one group."""
    hidden = torch.ones(2, 4, 4, 8)
    hidden[0, :2, :2] += 0.05 * torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    states = span(hidden.view(32, 8), None, frames=2, grid=(4, 4))
    strict = {"threshold": 0.9999, "temporal_threshold": 0.9, "root_level": 0}
    assert STTM(**strict).merge_span(states).outputs == 4
    assert OfficialSTTM(**strict).merge_span(states).outputs > 4


def test_newlines_stay_and_the_order_is_the_spans():
    hidden = clip(2, (4, 4))
    place = torch.cat([torch.arange(16), torch.tensor([-1]), torch.arange(16, 32), torch.tensor([-1])])
    states = torch.cat([hidden[:16], torch.full((1, 32), 7.0), hidden[16:], torch.full((1, 32), 8.0)])
    merge = STTM().merge_span(span(states, None, frames=2, grid=(4, 4), place=place)).validate()
    without = STTM().merge_span(span(hidden, None, frames=2, grid=(4, 4)))
    assert merge.outputs == without.outputs + 2
    out = merge.apply(states)
    newline = (place[merge.anchor] < 0).nonzero()[:, 0]
    assert out[newline].mean(1).tolist() == [7.0, 8.0]
    torch.testing.assert_close(out[place[merge.anchor] >= 0], without.apply(hidden))


def test_a_span_that_has_lost_patches_is_refused():
    states = span(torch.zeros(7, 4), None, frames=2, grid=(2, 2), place=torch.tensor([0, 1, 2, 3, 4, 5, -1]))
    with pytest.raises(ValueError, match=r"all 8 of 2 frames of \(2, 2\), but an earlier stage"):
        STTM().merge_span(states)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"threshold": 1.5}, "threshold is a cosine"),
        ({"temporal_threshold": -2.0}, "temporal_threshold is a cosine"),
        ({"root_level": -1}, "root_level counts from 0"),
        ({"head_dim": 0}, "head_dim is a number of channels"),
        ({"layer": 0}, "layer=0 is no inner layer"),
    ],
)
def test_settings_out_of_range(setting: dict, said: str):
    with pytest.raises(ValueError, match=said):
        STTM(**setting)


@pytest.mark.parametrize("grid", [(14, 14), (13, 7), (1, 5)])
def test_levels_are_means_over_children(grid: tuple[int, int]):
    values = torch.randn(1, *grid, 1)
    for level in levels(grid)[::-1]:
        found = torch.zeros(level.nodes)
        found.index_put_((level.row[:, None], level.column[None, :]), values.new_tensor(0.0), accumulate=True)
        for row in range(grid[0]):
            for column in range(grid[1]):
                found[level.row[row], level.column[column]] += level.share[row, column] * values[0, row, column, 0]
        coarse = values
        while coarse.shape[1:3] != level.nodes:
            coarse = over_children(over_children(coarse, 1, "mean"), 2, "mean")
        torch.testing.assert_close(found, coarse[0, :, :, 0])
    assert parents(5).tolist() == [0, 1, 1, 2, 2]
