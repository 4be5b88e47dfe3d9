"""The recipe for a model family, followed to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from families import FAMILIES, batch, build, three_rows
from family_reference import by_hand

from holitom import HoliTom
from holitom.cli.models import catalogue
from holitom.models import base, supported

PAGE = Path(__file__).parents[1] / "docs" / "add_a_model_family.md"
METHOD = HoliTom(retention=0.25, layer=None)
CLASS = "Ernie4_5_VLMoeForConditionalGeneration"


@pytest.fixture
def recipe():
    """Runs the page's Python; takes the family away again."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) == 2
    scope = {"__name__": "recipe"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    yield
    FAMILIES.pop("ernie", None)
    base._ADAPTERS.pop(CLASS, None)


def test_without_the_recipe_the_class_is_refused_by_name():
    assert CLASS not in supported()
    ernie = type(CLASS, (), {})
    with pytest.raises(TypeError, match=rf"no adapter for {CLASS}\. Supported: .*docs/add_a_model_family\.md"):
        METHOD(ernie())


@pytest.mark.usefixtures("recipe")
def test_the_recipe_works():
    model, eager, rows = build("ernie"), build("ernie", "eager"), three_rows("ernie")
    inputs = batch("ernie", *rows)
    with torch.no_grad():
        want = model(**inputs).logits
        with HoliTom(retention=1.0, layer=None)(model):
            assert torch.equal(model(**inputs).logits, want)
    with METHOD(model) as session:
        out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert [video.frames for video in session.videos] == [3, 2, 3]
    assert session.summary().cost is None
    assert str(session.summary()).endswith("the FLOPs and bytes of this family are not known")
    assert session.summary().as_dict()["cost"] is None
    assert "visual tokens into the LLM" in session._repr_html_()
    for number, one in enumerate(rows):
        hand, _ = by_hand(eager, "ernie", one, session.prompts[number].videos, METHOD, 4)
        assert out[number, -4:].tolist() == hand
    with pytest.raises(ValueError, match="layer=None"):
        HoliTom(layer=2)(model)
    [listed] = [entry for entry in catalogue() if entry["class"] == CLASS]
    assert listed["family"] == "ERNIE 4.5 VL"
    assert not listed["inside"]
