"""Methods choose on a GPU what they choose on a CPU, and wait for it no more often than they say."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from method_zoo import VARIANTS, make_video
from safetensors.torch import load_file
from test_golden_holitom import GOLDEN, INDEX, INPUTS, method_of
from test_launches import patches
from test_methods_device import NEVER_WAIT

from holitom import VideoTokens, kernels
from holitom.edges import sum_rows
from holitom.methods import Spread, parse, spell
from holitom.methods.base import Method
from holitom.ops.density_groups import Group, cluster_groups
from holitom.ops.farthest import FAR, pick_farthest
from holitom.ops.renewal import cut_positions
from holitom.ops.similarity import neighbour_cosine
from holitom.ops.spread import directions
from holitom.runtime.attention import attention_received
from holitom.tokens import SpanStates, TowerStates

WAITS = {"holitom": 1, "vcast": 1, "vidcom2": 1, "spread": 0}  # for what is counted on the CPU


def on_gpu(video: VideoTokens) -> VideoTokens:
    fields = ("features", "scores", "keys", "frame_embeddings", "question")
    return replace(video, **{name: getattr(video, name).cuda() for name in fields if getattr(video, name) is not None})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", VARIANTS, ids=spell)
def test_a_gpu_chooses_what_a_cpu_chooses(method: Method, seed: int):
    if isinstance(method, Spread) and kernels.find(torch.device("cuda")) is None:
        method = replace(method, pick="rounds")  # without kernels it picks so on a GPU, and in order on a CPU
    video = make_video(12, (7, 6), 48, seed, 0.3)
    want, got = method.merge_video(video), method.merge_video(on_gpu(video))
    assert got.target.is_cuda
    assert got.anchor.tolist() == want.anchor.tolist()
    assert got.target.tolist() == want.target.tolist()
    torch.testing.assert_close(got.weight.cpu(), want.weight, atol=1e-5, rtol=1e-5)
    got.validate()
    rows = video.features.flatten(0, 1)
    torch.testing.assert_close(got.apply(rows.cuda()).cpu(), want.apply(rows), atol=1e-4, rtol=1e-4)
    assert got.apply(rows.cuda().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("case", INDEX["outer"], ids=lambda case: case["key"])
def test_the_official_codes_tokens(case):
    tensors = load_file(GOLDEN / "outer.safetensors")
    key, grid = case["input"], INPUTS[case["input"]]["grid"]
    features, attention = (tensors[f"{key}.{name}"].float().cuda() for name in ("features", "attention"))
    method = method_of(case)
    video = VideoTokens(features, (grid, grid), attention)
    assert [list(span) for span in method.segment(video).spans] == case["segments"]
    if case["newline_mode"] != "grid":
        tokens = method.merge_video(video).apply(features.flatten(0, 1)).cpu()
        torch.testing.assert_close(tokens, tensors[f"{case['key']}.tokens"].float()[:-1], atol=1e-4, rtol=0)


@pytest.fixture
def watched_waits():
    """Every wait for the GPU becomes a warning."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("leading", [0, 1])
@pytest.mark.parametrize("static", [0.0, 0.6])
def test_rows_of_the_tower_are_chosen_there_with_one_wait(static: float, leading: int, watched_waits: None):
    torch.cuda.set_sync_debug_mode("default")
    method, hidden, grid = parse("renewal"), patches(static, 40, (27, 27)), (27, 27)
    hidden = torch.cat([hidden.new_zeros(40, leading, 64), hidden], 1)
    want = method.merge_tower(TowerStates(hidden, 1, 26, grid, leading))
    states = TowerStates(hidden.cuda(), 1, 26, grid, leading)
    method.merge_tower(states)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        merge = method.merge_tower(states)
    torch.cuda.set_sync_debug_mode("default")
    assert sum("synchron" in str(each.message) for each in caught) == 1
    for name in ("target", "anchor", "weight"):
        assert torch.equal(getattr(merge, name).cpu(), getattr(want, name)), name


@pytest.mark.parametrize(("frames", "grid"), [(9, (4, 5)), (40, (27, 27)), (5, (80, 96))])
@pytest.mark.parametrize("rings", [0, 1, 2])
def test_the_walk_over_the_frames(frames: int, grid: tuple[int, int], rings: int):
    random = torch.Generator().manual_seed(rings)
    apart = torch.rand(grid[0] * grid[1], frames, frames, generator=random)
    for threshold in (torch.tensor(0.5), torch.tensor(0.999)):
        want = cut_positions(apart, threshold, *grid, rings)
        assert torch.equal(cut_positions(apart.cuda(), threshold.cuda(), *grid, rings).cpu(), want)


@pytest.mark.parametrize("text", [*NEVER_WAIT, *WAITS])
def test_host_waits(text: str, watched_waits: None):
    torch.cuda.set_sync_debug_mode("default")
    method, video = parse(text), on_gpu(make_video(8, (6, 6), 16, 0, 0.3, torch.bfloat16))
    method.merge_video(video).apply(video.features.flatten(0, 1))  # what is loaded at the first use may wait
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method.merge_video(video).apply(video.features.flatten(0, 1))
    torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in caught if "synchron" in str(each.message)]
    assert len(waits) == WAITS.get(text, 0), waits


@pytest.mark.parametrize("text", ["fastv", "pyramiddrop", "flashvid", "holitom"])
def test_inner_stages_choose_what_a_cpu_chooses(text: str):
    method, random = parse(text), torch.Generator().manual_seed(0)
    hidden, attention = torch.randn(60, 16, generator=random), torch.rand(60, generator=random)

    def merged(device: str):
        place = torch.arange(60, device=device)
        arguments = (hidden.to(device), attention.to(device), method.layers(28)[0], 28, place, 8, (6, 6), 60)
        return method.merge_span(SpanStates(*arguments))

    want, got = merged("cpu"), merged("cuda")
    assert got.anchor.tolist() == want.anchor.tolist()
    assert got.target.tolist() == want.target.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_received_is_that_of_softmax(dtype: torch.dtype):
    query, key = (torch.randn(6, 300, 4, 32, device="cuda", dtype=dtype).transpose(1, 2) for _ in range(2))
    want = ((query.double() @ key.double().transpose(-1, -2)) * 0.2).softmax(-1).mean((1, 2)).float()
    got = attention_received(query, key, 0.2)
    torch.testing.assert_close(got, want, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_received_by_a_kernel(dtype: torch.dtype, padded: bool, monkeypatch: pytest.MonkeyPatch):
    assert kernels.find(torch.device("cuda")) is not None
    random = torch.Generator().manual_seed(0)
    query = torch.randn(3, 729, 4, 72, generator=random).cuda().to(dtype).transpose(1, 2)
    key = torch.randn(3, 729, 2, 72, generator=random).cuda().to(dtype).transpose(1, 2)
    real = (torch.rand(3, 729, generator=random) < 0.8).cuda() if padded else None
    got = attention_received(query, key, 72**-0.5, real)
    monkeypatch.setattr(kernels, "plain", True)
    want = attention_received(query.float(), key.float(), 72**-0.5, real)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tokens", [64, 6272, 8192])
def test_picks_by_a_kernel(tokens: int, monkeypatch: pytest.MonkeyPatch):
    unit = torch.nn.functional.normalize(torch.randn(1, tokens, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    distance, start = (1 - unit @ unit.mT).cuda(), torch.full((1, tokens), FAR).cuda()
    weight = torch.rand(1, tokens, generator=torch.Generator().manual_seed(2)).cuda() + 0.1
    arguments = (distance, start, weight, 50, tokens // 32, 0.25)
    got = pick_farthest(*arguments)
    monkeypatch.setattr(kernels, "plain", True)
    want = pick_farthest(*arguments)
    assert got[0].tolist() == want[0].tolist()
    assert got[1].tolist() == want[1].tolist()
    torch.testing.assert_close(got[2], want[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [64, 48, 128])
def test_directions_by_a_kernel(width: int):
    short = torch.randn(12, 196, width, generator=torch.Generator().manual_seed(0)) + 3
    short[3, 5, 7] = torch.nan
    for got, want in zip(directions(short.cuda()), directions(short), strict=True):
        torch.testing.assert_close(got.cpu(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_by_kernels(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(6, 50, 3584, generator=random).to(dtype)
    features[2, 3], features[3, 1, 9] = 0.0, torch.nan
    cosine = neighbour_cosine(features.cuda()).cpu()
    torch.testing.assert_close(cosine, neighbour_cosine(features), equal_nan=True, atol=1e-5, rtol=1e-5)
    source, first = torch.randint(300, (400,), generator=random), torch.tensor([0, 4, 4, 5, 222])
    arguments = [part.cuda() for part in (features.flatten(0, 1), source, first, torch.rand(400, generator=random))]
    got = sum_rows(*arguments)
    monkeypatch.setattr(kernels, "plain", True)
    torch.testing.assert_close(got, sum_rows(*arguments), equal_nan=True)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("points", [10, 196, 729])
def test_density_peaks_by_a_kernel(points: int, ascending: bool):
    groups = [Group(points, max(1, points // 10), 7), Group(points // 2, 3, 4), Group(5, 5, 2)]
    x = torch.randn(sum(group.size for group in groups), 64, generator=torch.Generator().manual_seed(points))
    want, got = (cluster_groups(rows, groups, ascending=ascending, centre_weight=0.6) for rows in (x, x.cuda()))
    assert got.number.tolist() == want.number.tolist()
    assert got.centre.tolist() == want.centre.tolist()
    torch.testing.assert_close(got.share.cpu(), want.share)


PLAIN_TOO = ["spread", "divprune", "flashvid", "holitom", "evs", "visionzip"]


@pytest.mark.parametrize("method", [parse(text) for text in PLAIN_TOO], ids=spell)
def test_plain_operations_choose_what_kernels_choose(method: Method, monkeypatch: pytest.MonkeyPatch):
    video = on_gpu(make_video(12, (7, 6), 96, 0, 0.3))
    got = method.merge_video(video)
    monkeypatch.setattr(kernels, "plain", True)
    if method.name == "spread":
        method = replace(method, pick="order")
    want = method.merge_video(video)
    assert got.anchor.tolist() == want.anchor.tolist()
    assert got.target.tolist() == want.target.tolist()
