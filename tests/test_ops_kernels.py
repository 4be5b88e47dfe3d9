"""Triton's kernels give what plain operations give: in Triton's interpreter, where Triton is installed.

The interpreter has to be chosen before Triton is imported, so that the tests run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from holitom.edges import sum_rows
from holitom.ops import density_groups, farthest, spread
from holitom.ops.density_groups import Group
from holitom.ops.renewal import cut_positions, patch_distances
from holitom.ops.similarity import neighbour_cosine
from holitom.runtime.attention import attention_received

pytest.importorskip("triton")


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def kernels():
    """The kernels as Python; the interpreter cannot multiply bfloat16."""
    if not INTERPRETED:
        pytest.skip("run by test_in_the_interpreter")
    import holitom.kernels.compiled

    return holitom.kernels.compiled


@pytest.mark.skipif(INTERPRETED, reason="is the test that runs this")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(("sets", "points", "count", "positions", "step"), [(1, 60, 25, 10, 0.25), (3, 33, 33, 33, 0)])
@pytest.mark.parametrize("weighted", [True, False])
def test_pick_farthest(kernels, sets, points, count, positions, step, weighted):
    random = torch.Generator().manual_seed(points)
    unit = torch.nn.functional.normalize(torch.randn(sets, points, 16, generator=random), dim=-1)
    distance, start = 1 - unit @ unit.mT, torch.full((sets, points), farthest.FAR)
    weight = torch.rand(sets, points, generator=random) + 0.1 if weighted else None
    start[:, 7] *= 2
    arguments = (distance, start, weight, count, positions, step)
    want, got = farthest.pick_farthest(*arguments), kernels.pick_farthest(*arguments)
    assert got[0].tolist() == want[0].tolist()
    assert got[1].tolist() == want[1].tolist()
    torch.testing.assert_close(got[2], want[2], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 50, 64), (2, 30, 12), (4, 70, 100)])
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_directions(kernels, shape, bad):
    short = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3
    short[1, 7, 3] += bad
    limits = (spread._ROUNDING, spread._TINY, spread._LEAST, spread.LAST)
    want, got = spread._plain_directions(short), kernels.directions(short, *limits)
    for mine, plain in zip(got, want, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("frames", "heads", "groups", "patches", "width"), [(2, 4, 2, 70, 24), (1, 2, 2, 130, 72), (2, 3, 1, 20, 16)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_column_sums(kernels, frames, heads, groups, patches, width, padded):
    random = torch.Generator().manual_seed(patches)
    query, key = (
        torch.randn(frames, patches, count, width, generator=random).half().transpose(1, 2) for count in (heads, groups)
    )
    real = torch.rand(frames, patches, generator=random) < 0.7 if padded else None
    reader = torch.full((frames, patches), 1 / patches) if real is None else real / real.sum(-1, keepdim=True)
    got = kernels.column_sums(query, key, 0.3, reader, real).mean(1)
    want = attention_received(query.float(), key.float(), 0.3, real)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("centre_weight", [None, 0.6])
@pytest.mark.parametrize("costs", [False, True])
def test_density_peaks(kernels, ascending, centre_weight, costs, monkeypatch):
    random = torch.Generator().manual_seed(3)
    groups = [Group(40, 7, 7), Group(1, 1, 1), Group(33, 33, 5), Group(12, 1, 20)]
    x, penalty = torch.randn(86, 8, generator=random), 0.1 * torch.rand(86, generator=random) if costs else None
    options = {"ascending": ascending, "centre_weight": centre_weight}
    want = density_groups.cluster_groups(x, groups, penalty, **options)

    def density_peaks(gram, table, penalty, width, largest, *rest):
        return kernels.density_peaks(gram, table, penalty, width, *rest)

    monkeypatch.setattr(density_groups, "density_peaks", density_peaks)
    got = density_groups.cluster_padded(x, groups, penalty, **options)
    assert got.number.tolist() == want.number.tolist()
    assert got.centre.tolist() == want.centre.tolist()
    torch.testing.assert_close(got.share, want.share)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sum_rows(kernels, dtype):
    random = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(20, 1100, generator=random).to(dtype), torch.rand(30, generator=random)
    source, first = torch.randint(20, (30,), generator=random), torch.tensor([0, 4, 4, 5, 22])
    got = kernels.sum_rows(rows, source, first, weight)
    torch.testing.assert_close(got, sum_rows(rows, source, first, weight))
    assert got[1].eq(0).all()


@pytest.mark.parametrize("grid", [(4, 5), (1, 20), (7, 6)])
@pytest.mark.parametrize("rings", [0, 1, 2])
def test_cut_positions(kernels, grid, rings):
    random = torch.Generator().manual_seed(rings)
    hidden = torch.randn(1, grid[0] * grid[1], 8, generator=random).repeat(9, 1, 1)
    hidden[:, :3] += 0.5 * torch.randn(9, 3, 8, generator=random).cumsum(0)
    hidden[4:, -1] += 1
    (apart,) = patch_distances(hidden, 32)
    apart[5, 2, 3] = torch.nan
    for threshold in torch.tensor([0.0, 0.1, 0.3]):
        want, got = (cut(apart, threshold, *grid, rings) for cut in (cut_positions, kernels.cut_positions))
        assert got.tolist() == want.tolist()
        assert want[-1].unique().numel() > 1


@pytest.mark.parametrize("step", [1, 2])
def test_neighbour_cosine(kernels, step):
    features = torch.randn(5, 6, 1100, generator=torch.Generator().manual_seed(0))
    features[2, 3], features[1, 4], features[3, 1, 9] = 0.0, features[2, 4] * 1.5, torch.nan
    got = kernels.neighbour_cosine(features, step)
    torch.testing.assert_close(got, neighbour_cosine(features, step=step), equal_nan=True, atol=1e-6, rtol=1e-6)
