"""The page is complete, true to the record, small, quick to write, and safe with whatever strings it is given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from report_traces import large, moving, pipeline, small
from typer.testing import CliRunner

import holitom
from holitom.cli import app
from holitom.methods import HoliTom
from holitom.methods.registry import parse
from holitom.ops.segmentation import segment
from holitom.report.page import page, page_data, write_page
from holitom.report.steps import steps_of
from holitom.report.trace import Stage, some, stages_of, trace

METHODS = ("holitom:retention=0.3", "visionzip:retention=0.3|fastv", "pyramiddrop", "fastvid")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def traced(pipe):
    return small(pipe, *METHODS)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


class TestTrace:
    def test_it_holds_what_pipeline_ask_says(self, pipe, traced):
        for run, name in zip(traced.runs, METHODS, strict=True):
            alone = pipe.ask(moving(8), traced.question, parse(name), max_new_tokens=3)
            assert run.answer.text == alone.text
            assert torch.equal(run.record.merge.target, alone.summary.prompts[0].videos[0].merge.target)
        assert traced.full.text == pipe.ask(moving(8), traced.question, None, max_new_tokens=3).text

    def test_gains_are_those_of_the_segmentation(self, pipe):
        run = small(pipe, "holitom").runs[0]
        found = small(pipe, "holitom")
        cut = segment(found.similarity > torch.tensor(run.threshold), None)
        assert run.record.merge.spans == tuple(cut.spans)
        assert list(run.gains) == cut.gains
        assert sum(run.gains) > 0, "the clip has a still background"

    def test_the_last_stage_holds_the_tokens_that_leave_the_model(self, traced):
        for run in traced.runs:
            stages = stages_of(run.record)
            assert [stage.merge.outputs for stage in stages[1:]] == run.record.tokens_by_stage[2:]
            assert [stage.layer for stage in stages[1:]] == [inner.layer for inner in run.record.inner]

    def test_stages_follow_the_tokens_through_the_layers(self, pipe):
        """What a patch became after the inner stage: composed here one token at a time, by the places on record."""
        for name in METHODS:
            record = small(pipe, name).runs[0].record
            where = {s: (int(record.merge.anchor[o]), float(w)) for s, o, w in zip(*record.merge.edges(), strict=True)}
            if record.merge.shares is not None:
                continue  # one source in several tokens: covered by Merge.compose
            for inner in record.inner:
                index = {int(flat): number for number, flat in enumerate(inner.place) if flat >= 0}
                step = {}
                for source, (anchor, weight) in where.items():
                    number = index.get(anchor)
                    if number is None or inner.merge.target[number] < 0:
                        continue
                    onward = int(inner.place[inner.merge.anchor[inner.merge.target[number]]])
                    if onward >= 0:
                        step[source] = (onward, weight * float(inner.merge.weight[number]))
                where = step
            last = stages_of(record)[-1].merge
            found = {
                int(s): (int(last.anchor[o]), float(w))
                for s, o, w in zip(*last.edges(), strict=True)
                if last.anchor[o] >= 0
            }
            expected = {int(source): value for source, value in where.items()}
            assert found.keys() == expected.keys()
            for source, (anchor, weight) in found.items():
                assert anchor == expected[source][0]
                assert weight == pytest.approx(expected[source][1])

    def test_attention_lies_on_the_tokens_that_were_there(self, traced):
        stage = traced.runs[0].stages[1]
        assert isinstance(stage, Stage)
        entered = traced.runs[0].stages[0].merge.anchor
        assert set((~stage.attention.isnan()).nonzero()[:, 0].tolist()) == set(entered.tolist())

    def test_many_stages_are_thinned_out_evenly(self):
        assert some(list(range(4))) == [0, 1, 2, 3]
        assert some(list(range(29))) == [0, 7, 14, 21, 28]

    def test_nothing_to_show_is_an_error(self, pipe):
        with pytest.raises(ValueError, match="at least one"):
            trace(pipe, moving(2), "?", [])


class TestSteps:
    """HoliTom's steps on the page are those of the run."""

    def test_its_numbers_are_those_of_the_run(self, pipe):
        found = small(pipe, "visionzip:retention=0.3", "holitom:retention=0.3")
        steps, run = steps_of(found), found.runs[1]
        assert steps.run == 1
        _, entering, leaving = run.answer.summary.visual_tokens
        assert steps.tokens[:3] == (128, 128 - sum(run.gains), entering - 1), "the newline is no patch"
        assert steps.tokens[3] in (leaving - 1, leaving), "inside, the newline may have joined a patch"
        assert steps.layer == run.stages[1].layer
        assert run.gains[run.record.merge.spans.index(steps.segment)] == max(run.gains)
        first, last = steps.segment
        assert len(steps.static) * (last - first) == max(run.gains)
        text = page(found)
        for number in steps.tokens:
            assert f'<p class="count"><b>{number}</b>' in text

    def test_no_step_adds_a_token(self, pipe):
        for retention in (0.3, 0.9, 0.99):
            tokens = steps_of(small(pipe, f"holitom:retention={retention}")).tokens
            assert list(tokens) == sorted(tokens, reverse=True)

    def test_without_an_inner_stage_it_has_three_steps(self, pipe):
        steps = steps_of(small(pipe, "holitom:retention=0.3,layer=none"))
        assert len(steps.tokens) == 3
        assert steps.layer is None

    def test_it_is_left_out_without_holitom(self, pipe):
        found = small(pipe, "fastvid")
        assert steps_of(found) is None
        assert "HoliTom step by step" not in page(found)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


class TestPage:
    def test_its_data_is_the_record(self, traced):
        shown = data_of(page(traced))
        assert shown == json.loads(json.dumps(page_data(traced)))
        for run, drawn in zip(traced.runs, shown["runs"], strict=True):
            assert drawn["stages"][0]["target"] == run.record.merge.target.tolist()
            assert drawn["stages"][0]["anchor"] == run.record.merge.anchor.tolist()
            assert drawn["stages"][0]["weight"] == pytest.approx(run.record.merge.weight.tolist(), rel=1e-3)

    def test_it_shows_what_the_vision_tower_computed(self, pipe, traced):
        found = small(pipe, "renewal:layer=0,guard=0|holitom:retention=0.3", "holitom")
        text, record = page(found), found.runs[0].record
        shown = data_of(text)
        inside, plain = (run["tower"] for run in shown["runs"])
        assert plain is None
        assert shown["tower"]["grid"] == list(record.tower.grid)
        assert inside["target"] == record.tower.merge.target.tolist()
        assert len(inside["anchor"]) == record.tower.rows[-1] < 0.9 * record.tower.merge.inputs
        places = {(patch, place) for patch, place in zip(shown["tower"]["patch"], shown["tower"]["place"], strict=True)}
        assert {place for _, place in places} == set(range(16))
        assert '<input type="radio" name="stage" value="tower">' in text
        assert "Vision tower FLOPs" in text
        rows = ", ".join(map(str, record.tower.rows))
        assert f"Patches computed in each block of the vision tower: {rows}, of {inside['target'].__len__()}" in text
        assert 'value="tower"' not in page(traced)

    def test_it_loads_nothing(self, traced):
        text = page(traced)
        elements = _Elements()
        elements.feed(text)
        for tag, attributes in elements.tags:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            assert not {"src", "srcset", "action"} & attributes.keys()
            assert attributes.get("href", "#").startswith("#")
        assert "http://" not in text
        assert "https://" not in text
        assert "default-src 'none'" in text

    def test_strings_of_users_are_text(self, pipe, tmp_path):
        evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&\"'"
        found = small(pipe, "holitom", frames=2, question=evil)
        clip = replace(found.clip, source=str(tmp_path / "<b>x</b>.mp4"), warning="<i>half</i>")
        run = replace(found.runs[0], name="<u>name</u>", answer=replace(found.runs[0].answer, text="<s>answer</s>"))
        elements = _Elements()
        text = page(replace(found, clip=clip, runs=(run,), model="<em>m</em>"))
        elements.feed(text)
        tags = [tag for tag, _ in elements.tags]
        assert tags.count("script") == 2
        assert not {"img", "u", "s", "em"} & set(tags)
        assert "&lt;s&gt;answer" in text
        assert data_of(text)["runs"][0]["name"] == "<u>name</u>"

    def test_32_frames_of_196_patches_are_small_and_quick(self, traced, tmp_path):
        found = large(traced, 32, (14, 14), (360, 640), [HoliTom(), parse("vidcom2"), parse("divprune")])
        assert len(found.runs) == 3
        start = time.perf_counter()
        path = write_page(found, tmp_path / "a" / "page.html")
        assert time.perf_counter() - start < 5
        assert path.stat().st_size < 5_000_000

    def test_a_model_that_joins_frames_shows_one_of_each_group(self, traced):
        joined = replace(traced, similarity=traced.similarity[:3])
        assert joined.frames == 4
        assert joined.shown == [0, 2, 4, 6]
        assert joined.times == [0.0, 1.0, 2.0, 3.0]

    def test_one_frame_is_enough(self, pipe):
        assert "1 frames" in page(small(pipe, "holitom", frames=1))


class TestCommand:
    def test_it_writes_the_page_and_says_where(self, film, tmp_path):
        out = tmp_path / "page.html"
        result = CliRunner().invoke(
            app, ["show", str(film), "--question", "What colour is the square?", "--method", "holitom", "--method",
                  "fastvid", "--retention", "0.2", "--out", str(out)], env={"COLUMNS": "300"},
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert str(out) in result.output
        shown = data_of(out.read_text("utf-8"))
        assert [run["name"] for run in shown["runs"]] == ["holitom:retention=0.2", "fastvid:retention=0.2"]

    def test_pictures_alone_write_no_page(self, film, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(app, ["show", str(film), "--png", "a.png", "--gif", "a.gif", "--mp4", "a.mp4"])
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4", "a.png"]

    @pytest.mark.parametrize("options", [["--method", "holiton"], ["--method", "none"], ["--retention", "2"]])
    def test_wrong_usage_is_told_in_a_sentence(self, film, options):
        result = CliRunner().invoke(app, ["show", str(film), *options])
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_the_wheel_holds_what_pages_are_made_of(tmp_path):
    root = Path(holitom.__file__).parents[1]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assets = root / "holitom" / "report" / "assets"
    assert {f"holitom/report/assets/{path.name}" for path in assets.iterdir()} <= names
