"""What methods ask of a GPU, counted on a CPU: operations, waits, and that they choose there what they choose here."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from families import batch, build, row
from method_zoo import VARIANTS, make_video

from holitom import HoliTom
from holitom.merge import Merge
from holitom.methods import names, parse, spell
from holitom.methods.base import Method
from holitom.methods.flashvid import FlashVID
from holitom.models.towers import Tower, TowerVideo
from holitom.ops import trees
from holitom.runtime import hooks
from holitom.runtime.sequence import Span, row_merge
from holitom.runtime.tower import TowerPass
from holitom.tokens import TowerStates, VideoTokens

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from clip import clip
from launches import DEVICE, Launches, counting, fetch, place
from methods import count, settings

MOST = {  # operations and waits of merging 32 frames of 14 x 14 at a tenth, as `benchmarks/methods.py --count` prints
    "holitom": (40, 1),
    "spread": (30, 0),
    "visionzip": (38, 0),
    "evs": (12, 0),
    "vidcom2": (39, 1),
    "vcast": (38, 1),
    "divprune": (33, 0),
    "prunevid": (65, 2),
    "fastvid": (106, 1),
    "flashvid": (157, 2),
    "dycoke": (34, 0),
    "echoprune": (40, 0),
    "uniformframes": (19, 0),
    "randomdrop": (10, 0),
    "averagepool": (9, 0),
}


@pytest.fixture(scope="module")
def video() -> VideoTokens:
    return clip(32, 14, 256, torch.bfloat16)


@pytest.mark.parametrize("name", MOST)
def test_no_method_asks_for_more_than_it_did(name: str, video: VideoTokens) -> None:
    method = next(method for method in settings(0.1) if method.name == name)
    found = count(method, video)
    assert (found.operations.total(), found.waits.total()) <= MOST[name], found
    assert found.waits.total() <= MOST[name][1]


def test_the_docs_show_these_numbers() -> None:
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text("utf-8")
    table = page.split("as on a GPU with Triton\n")[1].split("```")[0]
    shown = {row.split()[0].split(":")[0]: tuple(map(int, row.split()[1:])) for row in table.splitlines()[1:]}
    assert {name: shown[name] for name in MOST} == MOST


@pytest.mark.parametrize("run", ["cpu", "cuda", "memory"])
def test_the_docs_show_the_committed_runs(run: str) -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "methods.md").read_text("utf-8")
    assert (root / "benchmarks" / "results" / f"methods_{run}.txt").read_text("utf-8").strip() in page


def on_gpu(video: VideoTokens) -> VideoTokens:
    tensors = {name: place(value) for name, value in vars(video).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(video, **tensors)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("method", VARIANTS, ids=spell)
def test_the_path_of_a_gpu_chooses_what_that_of_a_cpu_chooses(method: Method, seed: int) -> None:
    video = make_video(12, (7, 6), 48, seed, 0.3)
    want, rows = method.merge_video(video), video.features.flatten(0, 1)
    with counting():
        merge = method.merge_video(on_gpu(video))
        out = merge.apply(place(rows))
    assert fetch(merge.anchor).tolist() == want.anchor.tolist()
    assert fetch(merge.target).tolist() == want.target.tolist()
    torch.testing.assert_close(fetch(merge.weight), want.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fetch(out), want.apply(rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_trees_of_a_long_video_are_clustered_in_parts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    video, method = make_video(12, (7, 6), 48, seed, 0.3), FlashVID(tau=0.5)
    want, chunks = method.merge_video(video), trees._chunks
    monkeypatch.setattr(trees, "_chunks", lambda groups, _: chunks(groups, 40))
    with counting():
        there = method.merge_video(on_gpu(video))
    for merge in (method.merge_video(video), there):
        assert fetch(merge.target).tolist() == want.target.tolist()
        assert fetch(merge.anchor).tolist() == want.anchor.tolist()
        torch.testing.assert_close(fetch(merge.weight), want.weight)


def patches(static: float, frames: int = 32, grid: tuple[int, int] = (14, 14)) -> torch.Tensor:
    """(T, P, 64) states of which a share stays the same but for a little noise."""
    random = torch.Generator().manual_seed(0)
    hidden, moving = torch.randn(1, grid[0] * grid[1], 64, generator=random), round((1 - static) * grid[0] * grid[1])
    hidden = hidden + 0.02 * torch.randn(frames, grid[0] * grid[1], 64, generator=random)
    hidden[:, :moving] = torch.randn(frames, moving, 64, generator=random)
    return hidden.to(torch.bfloat16)


@pytest.mark.parametrize("static", [0.0, 0.6])
@pytest.mark.parametrize("leading", [0, 1])
@pytest.mark.parametrize("text", ["renewal", "renewal:max_frames=10", "renewal:budget=0.5", "renewal:cut=segments"])
def test_rows_of_the_tower_are_chosen_on_the_device(text: str, leading: int, static: float) -> None:
    method, hidden = parse(text), patches(static)
    options: dict[str, object] = {}
    if leading:
        order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(196)])
        hidden = torch.cat([torch.zeros(32, 1, 64), hidden.float()], 1)[:, order]
        options = {"leading": 1, "order": order}
    want = method.merge_tower(TowerStates(hidden, 1, 26, (14, 14), **options))
    with counting() as found:
        merge = method.merge_tower(TowerStates(place(hidden), 1, 26, (14, 14), **options))
    assert (merge.outputs < 0.6 * merge.inputs) if static else (merge.outputs == merge.inputs)
    for name in ("target", "anchor", "weight"):
        assert torch.equal(fetch(getattr(merge, name)), getattr(want, name)), name
    if text == "renewal":
        assert found.waits.total() == 1, found.waits
        assert found.operations.total() <= RENEWAL[bool(static)] + 6 * leading, found


RENEWAL = {False: 43, True: 57}  # operations where it stands aside, and where it merges


def test_the_tower_asks_for_nothing_else_where_renewal_stands_aside() -> None:
    """Between two blocks. Where it merges, moving the states takes some, and what rows are asked in one more wait."""
    tower = Tower([torch.nn.Identity()] * 3, [None] * 3, (2,), [TowerVideo.contiguous(0, 32, (14, 14))])
    for static, more in ((0.0, 0), (0.6, 20)):
        hidden = place(patches(static).flatten(0, 1))
        with TowerPass(parse("renewal"), tower) as work:
            work.frames = range(0, 32 * 196 + 1, 196)
            with counting() as found:
                flat = work._merge(1, hidden, None)
            assert found.waits.total() == 1, found.waits
            assert found.operations.total() <= RENEWAL[bool(static)] + more, found
            if not static:
                assert flat is hidden
                assert work.rows is None
                continue
            with counting() as found:
                work._asked()
            assert (found.operations.total(), found.waits.total()) == (3, 1), found


class Counted(Exception):
    """Ends a forward pass whose part in front of the LLM has been counted."""


@pytest.mark.parametrize(
    ("name", "operations", "waits", "on_host"),
    [("llava_onevision", 50, 1, 33), ("qwen2_5_vl", 52, 2, 33), ("internvl", 56, 1, 68)],
)
def test_a_session_starts_few_operations_between_tower_and_llm(
    name: str, operations: int, waits: int, on_host: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HoliTom's own among them: the links are waited for, and a position where text goes on from a video in axes. What
    is on the host itself (ids, places) is worked on with few operations as well."""
    model, method = build(name), HoliTom(retention=0.25, similarity=0.8, scores="tower", layer=None)
    inputs = batch(name, row(name, ("words", 3), ("video", 8), ("words", 5)))
    with method(model) as session, torch.no_grad():
        want = model(**inputs, output_hidden_states=True).hidden_states[0]
        before, enter_decoder = session.videos[0].merge, hooks.enter_decoder

        def enter(call, decoder, kwargs):
            def placed(value):
                return place(value) if isinstance(value, torch.Tensor) else value

            with counting() as found:
                call.ids, call.mask = placed(call.ids), placed(call.mask)
                call.layouts = [dataclasses.replace(each, scores=place(each.scores)) for each in call.layouts]
                changed = enter_decoder(call, decoder, {name: placed(value) for name, value in kwargs.items()})
            raise Counted(found, fetch(changed["inputs_embeds"]))

        monkeypatch.setattr(hooks, "enter_decoder", enter)
        with pytest.raises(Counted) as caught:
            model(**inputs)
    found, got = caught.value.args
    assert before.outputs < 0.5 * before.inputs
    torch.testing.assert_close(got, want)
    assert (found.operations.total(), found.waits.total()) <= (operations, waits), found
    assert found.waits.total() <= waits, found
    assert found.on_host.total() <= on_host, found.on_host


def test_a_row_is_laid_out_alike_on_the_host_and_on_the_device() -> None:
    """Two videos of one run each: their outputs are ordered on the host where both are known to be, else there."""
    found = []
    for firsts in ((None, None), (3, None), (3, 30)):
        for move, device in ((torch.Tensor.clone, torch.device("cpu")), (place, DEVICE)):
            spans, target = [], torch.arange(20) // 2
            target[5] = -1
            with counting() as launches:
                for start, first in zip((3, 30), firsts, strict=True):
                    columns = torch.arange(start, start + 20)
                    merge = Merge(move(target), move(torch.ones(20) / 2), move(torch.arange(0, 20, 2)))
                    lies = (columns, torch.full_like(columns, start))
                    spans.append(Span(*(lies if first is not None else map(move, lies)), merge, first))
                row, places, text = row_merge(60, 2, spans, device)
            assert not launches.waits
            found.append([fetch(each).tolist() for each in (row.target, row.anchor, row.weight, *places, text)])
    assert all(each == found[0] for each in found)


def counted(task) -> Launches:
    with counting() as found:
        task(place(torch.arange(6.0).view(2, 3)))
    return found


@pytest.mark.parametrize(
    ("task", "operations", "waits"),
    [
        (lambda x: x[1:].T.view(3).unsqueeze(0), 0, 0),
        (lambda x: torch.empty_like(x), 0, 0),
        (lambda x: (x + 1).mul_(2), 2, 0),
        (lambda x: x.sum().item(), 2, 1),
        (lambda x: x.tolist(), 1, 1),
        (lambda x: x.cpu().add(1).sum().item(), 1, 1),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 1, 0),
        (lambda x: torch.ones(3).to(x.device), 1, 1),
        (lambda x: x[x > 2], 2, 1),
        (lambda x: (x > 2).nonzero(), 2, 1),
        (lambda x: torch.arange(3, device=x.device).repeat_interleave(torch.ones(3).long().to(x.device)), 4, 2),
        (lambda x: bool(x[0, 0]), 1, 1),
        (lambda x: torch.ones(3).add(1), 0, 0),
    ],
)
def test_what_counts(task, operations: int, waits: int) -> None:
    found = counted(task)
    assert (found.operations.total(), found.waits.total()) == (operations, waits), found


def test_values_are_those_of_the_host() -> None:
    x = torch.randn(5, 4)
    with counting():
        there = place(x)
        assert there.device.type != "cpu"
        part = there[1:].clone()
        part[0].fill_(7)
        both = torch.cat([part, there]).softmax(-1)
    want = x[1:].clone()
    want[0] = 7
    assert torch.equal(fetch(both), torch.cat([want, x]).softmax(-1))


@pytest.mark.parametrize("task", [lambda x: x + torch.ones(3), lambda x: x @ torch.ones(3, 2)])
def test_devices_do_not_mix(task) -> None:
    with pytest.raises(RuntimeError, match="one device"):
        counted(task)


def test_all_methods_with_a_retention_have_a_bound() -> None:
    assert MOST.keys() <= set(names())
    assert {method.name for method in settings(0.1)} - MOST.keys() == UNBOUNDED


UNBOUNDED = {"forestprune", "unifiedst", "cdpruner", "earlytom"}
