"""The short form of a stage inside the vision tower: ``tower=`` and ``--tower``."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import typer
from rich.console import Console

from holitom.bench import bench as run
from holitom.bench import build, fresh_report, from_preset, pixels
from holitom.cli.choices import choose, choose_all, in_tower, served
from holitom.cli.loading import load
from holitom.demo.app import samples
from holitom.demo.work import QuestionQueue
from holitom.evaluation import Log, evaluate
from holitom.evaluation.statistics import accuracy_table
from holitom.methods import HoliTom, Renewal, Uncompressed, parse, with_tower
from holitom.report.accuracy import accuracy_rich
from holitom.report.bench import bench_rich, inside_tower
from holitom.report.bench import rows as bench_rows
from holitom.video import Clip
from holitom.video.synthetic import suite


def test_a_method_stands_behind_the_tower():
    assert with_tower(HoliTom(), None) == HoliTom()
    assert with_tower(HoliTom(), "renewal") == parse("renewal|holitom")
    assert with_tower(Uncompressed(), Renewal(change=0.2)) == Renewal(change=0.2)
    with pytest.raises(ValueError, match="no method for the vision tower alone: give one of renewal, tome"):
        with_tower(HoliTom(), "evs")
    with pytest.raises(ValueError, match="has a stage inside the vision tower already"):
        with_tower(parse("earlytom"), "renewal")


def test_the_option_of_the_commands():
    assert in_tower(choose("holitom", 0.2), "renewal:guard=0") == parse("renewal:guard=0|holitom:retention=0.2")
    assert in_tower(None, "renewal") == Renewal()
    assert choose_all(["holitom"], [0.1, 0.2], None, "renewal") == [
        parse(f"renewal|holitom:retention={share}") for share in (0.1, 0.2)
    ]
    with pytest.raises(typer.BadParameter, match="there is no method 'renewel'"):
        in_tower(HoliTom(), "renewel")
    with pytest.raises(typer.BadParameter, match="vision towers are its own"):
        served("holitom", 0.1, "tiny", None, "renewal")


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", "cpu", "auto", None)


def test_ask_computes_a_still_video_once(tiny):
    random = np.random.default_rng(0)
    still = Clip.from_frames(np.repeat(random.integers(0, 255, (1, 64, 64, 3), dtype=np.uint8), 8, 0))
    plain = tiny.ask(still, "What colour?", max_new_tokens=4)
    fast = tiny.ask(still, "What colour?", tower="renewal:layer=0", max_new_tokens=4)
    assert fast.text == plain.text
    assert fast.summary.cost.ratios["vision_flops"] < 0.3
    assert "vision tower FLOPs" in str(fast.summary)


def test_the_demo_takes_a_method_for_the_tower(tiny, tmp_path):
    queue = QuestionQueue(tiny)
    try:
        ((file, question), *_) = samples(tmp_path, 1).values()
        *_, last = queue.ask(file, question, "holitom", 0.25, 8, 4, "renewal:layer=0")
        assert "renewal:layer=0|holitom:retention=0.25" in last.page
        assert "inside the vision tower" in last.page
        *_, last = queue.ask(file, question, "earlytom", 0.25, 8, 4, "renewal")
        assert last.failed
        assert "has a stage inside the vision tower already" in last.status
    finally:
        queue.close()


def test_an_evaluation_encodes_for_each_stage_inside_the_tower(tiny):
    clips = list(suite("val", 2, 0))
    methods = [Uncompressed(), Renewal(layer=0), parse("renewal:layer=0|holitom"), HoliTom()]
    rows = evaluate(tiny, clips, methods, Log(None, {}))
    shares = {(row.clip, row.method): row.tower_share for row in rows}
    for clip in {row.clip for row in rows}:
        assert shares[clip, "uncompressed"] == shares[clip, "holitom"] == 1
        assert shares[clip, "renewal:layer=0"] == shares[clip, "renewal:layer=0|holitom"] < 0.9
    table = accuracy_table(rows, "uncompressed")
    mean = np.mean([share for (_, method), share in shares.items() if method == "renewal:layer=0"])
    assert table["renewal:layer=0|holitom"]["tower_flops"] == mean
    for methods, shown in ((table, True), ({"holitom": table["holitom"]}, False)):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(accuracy_rich(methods))
        text = " ".join(console.export_text().split())
        assert ("tower: FLOPs of the vision tower" in text) == shown == (f"{100 * mean:.1f}" in text)


def test_a_share_of_the_picture_never_changes():
    video = pixels.frames(6, 56, static=0.5)
    assert torch.equal(video[:, :, :28], video[:1, :, :28].expand(6, -1, -1, -1))
    assert not torch.allclose(video[1:, :, 28:], video[:-1, :, 28:], atol=0.01)
    assert "the upper 50%" in pixels.description(0.5)
    with pytest.raises(ValueError, match=r"static is a share.*1\.5"):
        pixels.frames(2, 8, static=1.5)


def test_bench_does_not_share_a_tower_that_works_on_rows():
    workload = from_preset("tiny", build("tiny", dtype=torch.float32), frames=8, text=12, answer=1, static=0.9)
    methods = [Uncompressed(), HoliTom(), parse("renewal:layer=0|holitom"), Uncompressed(stock=True)]
    report = fresh_report(
        workload, {"repeats": 1, "warmup": 0, "batch": 1, "frames": 8, "dtype": "-", "attention": "-"}, methods
    )
    run(workload, methods, report, share_tower=True)
    ratios = {name: facts["cost_ratios"]["vision_flops"] for name, facts in report.methods.items()}
    assert ratios["uncompressed"] == ratios["holitom"] == 1
    assert ratios["renewal:layer=0|holitom"] < 0.7
    seconds = [report.rounds[0][name]["vision tower"] for name in report.methods]
    assert seconds[0] != seconds[2]
    found = {row["method"]: row for row in bench_rows(report)}
    assert found["renewal:layer=0|holitom"]["tower_flops"] == ratios["renewal:layer=0|holitom"]
    first = {name: found[name]["time to first token"] for name in found}
    assert found["holitom"]["stock_speedup"] == pytest.approx(first["uncompressed:stock=true"] / first["holitom"])
    assert inside_tower(list(found.values())) == ["tower_flops", "stock_speedup"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(bench_rich(report))
    assert f"{100 * ratios['renewal:layer=0|holitom']:.1f}" in console.export_text()
    assert inside_tower([found["holitom"] | {"stock_speedup": None}]) == []
