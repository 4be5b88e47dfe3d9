"""Every method on every family, alone and in a batch; and the table of models."""

from __future__ import annotations

import json
from itertools import product

import pytest
import typer
from families import FAMILIES, FAMILIES_AND_DERIVED, batch, model_of, questions, three_rows
from matrix import some
from typer.testing import CliRunner

from holitom.cli.models import catalogue, models
from holitom.methods.registry import BUILTIN, parse
from holitom.models import adapter_for, supported

STEPS = 3


def method_for(name, key):
    """The method with its default settings; where it has a stage inside the LLM, only before it if that is all."""
    cls, family = BUILTIN[key], FAMILIES[name]
    method = cls()
    if not method.layers(4):
        return method
    if family.inner and method.layers(4)[0] >= max(1, family.deepstack):
        return method
    return cls(layer=None) if "before" in cls.stages and "layer" in method.settings() else None


@pytest.mark.parametrize(("name", "key"), some(product(FAMILIES, BUILTIN), 12))
def test_a_batch_equals_each_row_alone(name, key):
    model, rows, method = model_of(name), three_rows(name), method_for(name, key)
    if method is None:
        with pytest.raises(ValueError, match=r"layer"):
            BUILTIN[key]()(model)
        return
    with method(model, question=questions(*rows)) as session:
        out = model.generate(**batch(name, *rows), max_new_tokens=STEPS, do_sample=False)[:, -STEPS:]
        together = [video.tokens_by_stage for video in session.videos]
        for video in session.videos:
            video.merge.validate()
        alone, apart = [], []
        for one in rows:
            session.question = questions(one)
            alone.append(model.generate(**batch(name, one), max_new_tokens=STEPS, do_sample=False)[0, -STEPS:].tolist())
            apart += [video.tokens_by_stage for video in session.videos] if one.videos else []
    assert together == apart
    assert out.tolist() == alone
    assert any(stages[-1] < stages[0] for stages in together) or method.stages == ("tower",)


MODIFIED = (
    "holitom:sink=1.0,change=0.1,retention=0.5,layer=none",
    "visionzip:sink=1.0",
    "spread:change=0.2,retention=0.5",
)


@pytest.mark.parametrize(("name", "text"), some(product(FAMILIES, MODIFIED), 3))
def test_modifiers_look_at_each_row_alone(name, text):
    model, rows, method = model_of(name), three_rows(name), parse(text)
    with method(model) as session:
        out = model.generate(**batch(name, *rows), max_new_tokens=STEPS, do_sample=False)[:, -STEPS:].tolist()
        together = [video.tokens_by_stage for video in session.videos]
        alone, apart = [], []
        for one in rows:
            alone.append(model.generate(**batch(name, one), max_new_tokens=STEPS, do_sample=False)[0, -STEPS:].tolist())
            apart += [video.tokens_by_stage for video in session.videos] if one.videos else []
    assert together == apart
    assert out == alone
    assert all(stages[1] < stages[0] for stages in together)


def test_the_table_lists_what_is_tested():
    tested = {type(model_of(name)).__name__: model_of(name) for name in FAMILIES_AND_DERIVED}
    rows = {row["class"]: row for row in catalogue()}
    assert rows.keys() == tested.keys() == supported().keys()
    for name, model in tested.items():
        assert rows[name]["inside"] == adapter_for(model).inner
        assert rows[name]["family"] != name
        assert rows[name]["scores"].split(";")[0] in ("received", "CLS")


def test_the_table_is_printed():
    app = typer.Typer()
    app.command()(models)
    shown = CliRunner().invoke(app, env={"COLUMNS": "100"})
    assert shown.exit_code == 0
    assert "Qwen2.5-VL" in shown.output
    assert "LLaVA-OneVision" in shown.output
    assert "CLS" in shown.output
    assert json.loads(CliRunner().invoke(app, ["--json"]).output) == catalogue()
