"""What every method promises that takes from attention sinks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from method_zoo import make_video

from holitom.methods import BUILTIN, EVS, EarlyTom, SinkAware, parse
from holitom.ops.sinks import sink_scores

AWARE = [name for name, cls in BUILTIN.items() if issubclass(cls, SinkAware)]
SINK = 17


def with_sink(scale: float = 1.0):
    """A video in which one position gets sixteen times the mean attention of the others, in every frame."""
    video = make_video(8, (7, 7), 16, seed=3, motion=2.0)
    scores = video.scores.clone()
    scores[:, SINK] = 8
    return dataclasses.replace(video, scores=scale * scores)


def test_sink_scores_know_no_units() -> None:
    scores = with_sink().scores
    found = sink_scores(scores)
    assert int(found.argmax()) == SINK
    assert (float(found.min()), float(found.max())) == pytest.approx((0, 1))
    torch.testing.assert_close(sink_scores(1e-6 * scores), found, atol=1e-5, rtol=0)
    assert sink_scores(torch.full((3, 4), 0.5)).tolist() == [0] * 4
    broken = scores.clone()
    broken[0, 3], broken[1, 4] = torch.nan, torch.inf
    assert sink_scores(broken).isfinite().all()


@pytest.mark.parametrize("name", AWARE)
@pytest.mark.parametrize("exact", [False, True])
def test_a_sink_is_not_kept_and_units_do_not_matter(name: str, exact: bool) -> None:
    method = parse(f"{name}:retention=0.2")
    if exact:
        if name == EarlyTom.name:
            return  # has no exact count
        method = dataclasses.replace(method, exact=True)
    sunk = dataclasses.replace(method, sink=1.0)
    plain, less = method.merge_video(with_sink()), sunk.merge_video(with_sink()).validate()
    counts = [int((merge.anchor % 49 == SINK).sum()) for merge in (plain, less)]
    assert counts[1] < counts[0]
    assert less.anchor.tolist() == sunk.merge_video(with_sink(scale=1e-3)).anchor.tolist()
    if exact:
        assert less.outputs == plain.outputs == sunk.token_count(8, (7, 7))


def test_the_strength_is_checked_and_others_have_none() -> None:
    with pytest.raises(ValueError, match="strength"):
        parse("visionzip:sink=-1")
    with pytest.raises(ValueError, match="no parameter 'sink'"):
        parse("evs:sink=1")
    assert not isinstance(EVS(), SinkAware)
