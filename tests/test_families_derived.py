"""Families built of others' parts: equalities as in tests/test_families_equalities.py, and a stage in the tower."""

from __future__ import annotations

import pytest
import torch
from families import DERIVED, batch, model_of, row, three_rows
from family_reference import by_hand

from holitom import HoliTom
from holitom.methods import Renewal

STEPS = 4
OUTER = HoliTom(retention=0.25, layer=None)
INNER = HoliTom(retention=0.3, layer=3)
CASES = [(name, OUTER) for name in DERIVED] + [(name, INNER) for name, family in DERIVED.items() if family.inner]


@pytest.mark.parametrize("name", DERIVED)
def test_retention_one_changes_no_bit(name: str):
    model, inputs = model_of(name), batch(name, *three_rows(name))
    with torch.no_grad():
        want = model(**inputs).logits
        with HoliTom(retention=1.0, layer=None)(model) as session:
            got = model(**inputs).logits
    assert torch.equal(got, want)
    assert len(session.videos) == 3


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_batch_equals_a_computation_by_hand(name: str, method: HoliTom):
    model, eager, rows = model_of(name), model_of(name, "eager"), three_rows(name)
    with method(model) as session:
        out = model.generate(
            **batch(name, *rows),
            max_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    for number, one in enumerate(rows):
        want, expected = by_hand(eager, name, one, session.prompts[number].videos, method, STEPS)
        torch.testing.assert_close(torch.stack(out.logits, 1)[number], expected, atol=5e-4, rtol=0)
        assert out.sequences[number, -STEPS:].tolist() == want
    videos = [video for prompt in session.prompts for video in prompt.videos]
    assert len(videos) == 3
    assert all(video.merge.retention < 0.6 for video in videos)


@pytest.mark.parametrize("name", DERIVED)
def test_equal_frames_are_computed_once_in_the_vision_tower(name: str):
    model, one = model_of(name), row(name, ("words", 3), ("video", 6), ("words", 4))
    inputs = batch(name, one)
    steps, rows, columns = inputs["video_grid_thw"][0].tolist()
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"][: rows * columns].repeat(steps, 1)
    entering: list[torch.Tensor] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _m, _a, kwargs: entering.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
        with Renewal(change=0.0)(model) as session:
            model(**inputs)
    handle.remove()
    assert session.videos[0].tower.share < 0.8
    torch.testing.assert_close(*entering, atol=1e-7, rtol=0)
