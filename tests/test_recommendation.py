"""A checkpoint's own recommendation: what is beside the weights is the default, and options override it."""

from __future__ import annotations

import json

import pytest
import typer
from tiny_checkpoints import build_llava_onevision

from holitom.cli.choices import choose, served
from holitom.cli.loading import recommended, resolve
from holitom.methods import EVS, FastV, HoliTom, Spread, VCast
from holitom.pipeline import Pipeline
from holitom.recommendation import FILE, Recommendation


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILE).write_text(
        json.dumps({"method": "vcast:retention=0.3,positions=original", "measured_on": "ten clips"})
    )
    return str(tmp_path)


def test_it_is_the_default_of_what_nobody_set(folder):
    assert choose(None, None, folder) == VCast(retention=0.3, positions="original")
    assert choose(None, 0.1, folder) == VCast(retention=0.1, positions="original")
    assert choose(None, None, folder, "compact") == VCast(retention=0.3)
    assert choose("evs", None, folder) == EVS(retention=0.3)
    assert choose("evs", 0.2, folder, "original") == EVS(retention=0.2, positions="original")
    assert choose("none", None, folder) is None
    assert served(None, 0.2, folder).method == VCast(retention=0.2, positions="original", exact=True)


def test_without_one_the_default_is_holitom(tmp_path):
    assert Recommendation.beside(tmp_path) is None
    assert choose(None, None, str(tmp_path)) == HoliTom()
    assert Recommendation.beside("somebody/a-model-that-was-never-downloaded") is None


def test_chains_keep_their_other_stages(tmp_path):
    wanted = Recommendation(Spread(retention=0.3) | FastV(layer=2), "ten clips")
    assert wanted.write(tmp_path) == tmp_path / FILE
    assert Recommendation.beside(tmp_path) == wanted
    assert choose(None, 0.2, str(tmp_path)) == Spread(retention=0.2) | FastV(layer=2)
    assert choose(None, None, str(tmp_path), "compact").before == Spread(retention=0.3, positions="compact")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"method": "best"}', '{"method": "best", "measured_on": ""}', '{"method": "evs"}']
)
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=FILE):
        Recommendation.beside(tmp_path)


def test_positions_without_a_method_and_wrong_words_are_refused(folder):
    with pytest.raises(typer.BadParameter, match="neither compact nor original"):
        choose("evs", None, folder, "kept")
    with pytest.raises(typer.BadParameter, match="keeps its place"):
        choose("none", None, folder, "original")


def test_it_is_written_beside_weights_alone(tmp_path, monkeypatch):
    """A folder of the name of a model on the hub would hide it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder of a checkpoint: 'maker/model'"):
        Recommendation(EVS(), "ten clips").write("maker/model")
    assert not list(tmp_path.iterdir())
    assert Recommendation.beside(Recommendation(EVS(), "ten clips").write(tmp_path).parent).method == EVS()


def test_the_model_inside_the_package_carries_one():
    own = recommended("tiny")
    assert own == Recommendation.beside(resolve("tiny"))
    assert own.method.stage("before").token_count(16, (7, 7)) <= 16 * 49 // 4


def test_a_pipeline_knows_it(tmp_path):
    folder = build_llava_onevision(tmp_path / "tiny")
    assert Pipeline.from_pretrained(folder, device="cpu").recommended is None
    Recommendation(EVS(retention=0.3), "ten clips").write(folder)
    assert Pipeline.from_pretrained(folder, device="cpu").recommended == EVS(retention=0.3)
