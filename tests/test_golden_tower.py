"""The comparators inside the vision tower give what their official codes give, from the same inputs."""

from __future__ import annotations

import pytest
import torch
from golden import TOLERANCE, Case, of_kind

from holitom.ops import earlytom, tome


def each(golden: list[Case]) -> pytest.MarkDecorator:
    assert golden
    return pytest.mark.parametrize("case", golden, ids=repr)


def tower_call(hidden, attention, last, tau, max_window, ema):
    """One call of the official tower hook: states, attention and segments after it."""
    similarity = earlytom.frame_similarity(hidden)
    spans = earlytom.cut_frames(similarity, tau, max_window, ema)
    merge = earlytom.merge_frames(similarity, spans).validate()
    out = merge.apply(hidden)
    if last and len(hidden) > 1:
        spans = earlytom.cut_frames(earlytom.frame_similarity(out), tau, max_window, ema)
    return out, merge.apply(attention), spans


@each(of_kind("earlytom", "tower"))
def test_earlytom_in_the_tower(case: Case) -> None:
    keys = ("last", "tau", "max_window", "ema")
    out, attention, spans = tower_call(case.hidden, case.attention, **{key: case.params[key] for key in keys})
    torch.testing.assert_close(out, case.out, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(attention, case.out_attention, atol=TOLERANCE, rtol=0)
    assert spans == [tuple(span) for span in case.segments.tolist()]
    assert len(out) == case.n_out


@each(of_kind("earlytom", "outer"))
def test_earlytom_behind_the_projector(case: Case) -> None:
    frames, positions = case.features.shape[:2]
    share = earlytom.effective_retention(case.params["r"], case.params["frames_before"], frames, positions)
    assert share == pytest.approx(case.params["ratio"], abs=1e-12)
    index = earlytom.select_tokens(case.attention, case.segments.tolist(), share)
    assert index.tolist() == case.index.tolist()
    assert torch.equal(case.features.flatten(0, 1)[index], case.out)


@each(of_kind("earlytom", "chain"))
def test_earlytom_from_the_tower_to_the_llm(case: Case) -> None:
    hidden, attention = case.hidden, case.attention
    for call in range(case.params["calls"]):
        last = call == case.params["calls"] - 1
        keys = ("tau", "max_window", "ema")
        hidden, attention, spans = tower_call(hidden, attention, last, **{key: case.params[key] for key in keys})
    torch.testing.assert_close(hidden, case.frames, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(attention, case.frames_attention, atol=TOLERANCE, rtol=0)
    assert spans == [tuple(span) for span in case.segments.tolist()]
    frames, positions = hidden.shape[:2]
    share = earlytom.effective_retention(case.params["r"], case.params["T"], frames, positions)
    index = earlytom.select_tokens(attention, spans, share)
    torch.testing.assert_close(hidden.flatten(0, 1)[index], case.out, atol=TOLERANCE, rtol=0)


@each(of_kind("tome", "merge"))
def test_tome(case: Case) -> None:
    hidden, size = case.hidden, torch.ones(case.hidden.shape[:2])
    group = torch.arange(hidden.shape[1]).expand(len(hidden), -1)
    for step, count in enumerate(case.params["r"]):
        target, anchor = tome.pair_tokens(getattr(case, f"metric{step}"), count)
        share, size = tome.mean_by_size(target, size, anchor.shape[1])
        weighed = hidden * share[..., None]
        hidden = hidden.new_zeros(*anchor.shape, hidden.shape[-1]).scatter_add_(
            1, target[..., None].expand_as(weighed), weighed
        )
        group = target.gather(1, group)
    torch.testing.assert_close(hidden, case.out, atol=TOLERANCE, rtol=0)
    assert torch.equal(size.flatten(), case.size.flatten())
    assert group.flatten().tolist() == case.group.flatten().tolist()


@each(of_kind("tome", "schedule"))
def test_the_schedule_of_tome(case: Case) -> None:
    layers, total = case.params["layers"], case.params["MERGE_NUM"]
    found = tome.counts_of_total(layers, total) if total else tome.falling_counts(layers, case.params["R"])
    assert found == case.r.tolist()
