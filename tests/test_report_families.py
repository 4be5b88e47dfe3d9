"""Pictures of every family: frames that are joined, newlines between patches, text between frames."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, batch, model_of, three_rows

from holitom.methods import HoliTom
from holitom.report.overlay import paint
from holitom.report.trace import stages_of


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_lead_from_the_patches_to_the_tokens_that_are_left(name):
    model = model_of(name)
    family = FAMILIES[name]
    inputs = batch(name, *three_rows(name))
    layer = len(model.get_decoder().layers) - 1 if family.inner else None
    with HoliTom(retention=0.4, layer=layer)(model) as session, torch.no_grad():
        model(**inputs)
    assert session.videos
    for record in session.videos:
        assert len(record.inner) == (1 if family.inner else 0)
        stages = stages_of(record)
        assert [stage.layer for stage in stages] == [None, *(inner.layer for inner in record.inner)]
        assert stages[0].merge.outputs + record.newlines == record.tokens_by_stage[1]
        for stage in stages[1:]:
            merge = stage.merge
            assert merge.outputs == record.tokens_by_stage[-1]
            patches = merge.anchor >= 0
            assert (~patches).sum() <= record.newlines
            assert set(merge.anchor[patches].tolist()) <= set(record.merge.anchor.tolist())
            source, output, weight = merge.edges()
            sums = torch.zeros(merge.outputs).index_add_(0, output, weight)
            assert (sums[patches] <= 1 + 1e-4).all()  # a newline that joined a patch's token holds the rest
            if not record.newlines:
                torch.testing.assert_close(sums, torch.ones(merge.outputs))
            own = {int(s): int(o) for s, o in zip(source, output, strict=True)}
            for token in patches.nonzero()[:, 0].tolist():
                assert own[int(merge.anchor[token])] == token
        for stage in stages:
            frames = torch.zeros(record.frames, 32, 32, 3, dtype=torch.uint8).numpy()
            assert len(paint(frames, stage.merge, record.grid)) == record.frames
