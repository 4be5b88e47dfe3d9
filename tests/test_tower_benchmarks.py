"""The benchmarks of the stage inside the vision tower: their clips, their parts, and runs that go on."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from holitom.video.synthetic import suite

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])

    def run(name, *arguments):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return module

    return run


def test_films_are_those_of_the_suite_until_the_camera_turns(script):
    films = script("testbed_tower").films
    for own, usual in zip(islice(films("val", 0.0), 18), suite("val", 18), strict=True):
        assert own.name == usual.name
        assert np.array_equal(own.frames, usual.frames)
        assert own.questions == usual.questions
    turned = list(islice(films("val", 8.0), 18))
    assert all(not np.array_equal(a.frames, b.frames) for a, b in zip(turned, suite("val", 18), strict=True))
    assert [a.name for a in turned] == [b.name for b in suite("val", 18)]


@pytest.mark.slow
def test_parts_together_are_the_whole(script, tmp_path, capsys):
    common = ["-n", 3, "--split", "val", "--noise", 5, "--designs", "renewal:layer=0", "--alone"]
    common += ["--behind", "uncompressed"]
    for part in ("1/2", "2/2"):
        script("testbed_tower", *common, "--rows", tmp_path / "parts", "--shard", part).main()
    assert "accuracy" not in capsys.readouterr().out
    for rows in ("parts", "whole"):
        script("testbed_tower", *common, "--rows", tmp_path / rows, "--json", tmp_path / f"{rows}.json").main()
    found = json.loads((tmp_path / "parts.json").read_text())
    assert found == json.loads((tmp_path / "whole.json").read_text())
    plain, renewed = found["rows"]
    assert plain["tower"] == 1 > renewed["tower"]
    assert (tmp_path / "parts" / "val-noise-5-pan-0-1-of-1.jsonl").read_text().count("\n") == 1  # none was done twice
    fewer = [*common[:1], 1, *common[2:]]
    for rows in ("parts", "fewer"):  # a shorter run leaves out what a longer one has found
        script("testbed_tower", *fewer, "--rows", tmp_path / rows, "--json", tmp_path / f"{rows}-1.json").main()
    assert json.loads((tmp_path / "parts-1.json").read_text()) == json.loads((tmp_path / "fewer-1.json").read_text())
    with pytest.raises(SystemExit):
        script("testbed_tower", "--shard", "3/2").main()
    with pytest.raises(SystemExit):
        script("testbed_tower", "--shard", "1/2").main()


@pytest.mark.slow
def test_parts_of_the_testbed_are_the_whole(script, tmp_path, capsys):
    for part in ("1/2", "2/2"):
        script("testbed", "auto", "-n", 2, "--rows", tmp_path / "parts", "--shard", part).main()
    assert not capsys.readouterr().out
    for rows in ("parts", "whole"):
        script("testbed", "auto", "-n", 2, "--rows", tmp_path / rows, "--json", tmp_path / f"{rows}.json").main()
    assert json.loads((tmp_path / "parts.json").read_text()) == json.loads((tmp_path / "whole.json").read_text())


@pytest.mark.slow
def test_a_tower_run_goes_on_where_it_was(script, tmp_path, capsys):
    small = ["--towers", "siglip", "--blocks", 2, "--frames", 2, "--static", 0.9, "--out", tmp_path]
    module = script("tower", *small, "--rounds", 1)
    module.main()
    first = json.loads((tmp_path / "tower_siglip.json").read_text())
    script("tower", *small, "--rounds", 2).main()
    then = json.loads((tmp_path / "tower_siglip.json").read_text())
    assert then["rounds"][:1] == first["rounds"]
    assert len(then["rounds"]) == 2
    assert "2 rounds" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="other settings"):
        script("tower", *small[:-4], "--static", 0.5, "--out", tmp_path).main()
