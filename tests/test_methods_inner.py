"""What every inner method promises about the tokens it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from golden import span
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.methods.baselines import RandomInner
from holitom.methods.chain import Chain
from holitom.methods.evs import EVS
from holitom.methods.fastv import FastV
from holitom.methods.flashvid import FlashVID
from holitom.methods.framefusion import FrameFusion
from holitom.methods.holitom import HoliTom
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.methods.vidcom2 import VidCom2
from holitom.methods.visionzip import VisionZip
from holitom.tokens import SpanStates, TowerStates

INNER: tuple[Method, ...] = (
    FastV(),
    PyramidDrop(),
    HoliTom(),
    FlashVID(),
    PruneVid(),
    FrameFusion(),
    FrameFusion(first=0),
    RandomInner(),
    RandomInner(merge=True, inner_retention=0.3),
)


@st.composite
def spans(draw: st.DrawFn) -> SpanStates:
    frames, positions = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 1000))
    random = torch.Generator().manual_seed(seed)
    place = torch.rand(frames * positions, generator=random).argsort()[: draw(st.integers(1, frames * positions))]
    place = torch.cat([place.sort().values, torch.full((draw(st.integers(0, 2)),), -1)])
    hidden = torch.randn(len(place), 8, generator=random)
    return span(
        hidden.to(draw(st.sampled_from([torch.float32, torch.bfloat16]))),
        torch.rand(len(place), generator=random),
        place=place,
        frames=frames,
        grid=(1, positions),
        entered=len(place),
    )


@pytest.mark.parametrize("method", INNER, ids=repr)
@given(first=spans(), depth=st.integers(4, 32))
@settings(max_examples=30, deadline=None)
def test_maps_through_the_whole_model_are_sound(method: Method, first: SpanStates, depth: int) -> None:
    hidden, place, memory = first.hidden, first.place, {}
    layers = method.layers(depth)
    assert list(layers) == sorted(set(layers))
    assert all(0 <= layer < depth for layer in layers)
    for layer in layers:
        attention = None if layer == 0 else torch.rand(len(place), generator=torch.Generator().manual_seed(layer))
        here = SpanStates(hidden, attention, layer, depth, place, first.frames, first.grid, first.entered, memory)
        merge = method.merge_span(here).validate()
        assert merge.outputs >= 1
        assert (merge.anchor[1:] > merge.anchor[:-1]).all()
        hidden, place = merge.apply(hidden), merge.gather(place)
        assert hidden.dtype == first.hidden.dtype


def test_fastv_keeps_the_most_attended() -> None:
    attention = torch.tensor([0.1, 0.5, 0.2, 0.9, 0.0])
    assert FastV(inner_retention=0.4).merge_span(span(torch.zeros(5, 1), attention)).anchor.tolist() == [1, 3]
    assert FastV(keep=1).merge_span(span(torch.zeros(5, 1), attention)).anchor.tolist() == [3]
    assert FastV(keep=9).merge_span(span(torch.zeros(5, 1), attention)).outputs == 5


def test_pyramiddrop_counts_from_what_entered() -> None:
    method = PyramidDrop()
    for layer, present, kept in ((8, 101, 50), (16, 50, 25), (24, 25, 12)):
        here = span(torch.zeros(present, 1), torch.rand(present), layer=layer, depth=32, entered=101)
        assert method.merge_span(here).outputs == kept


def test_framefusion_meets_its_cost() -> None:
    """Nothing alike: no merging, and pruning alone brings the sum over layers to the cost."""
    depth, count = 28, 1000
    method, memory = FrameFusion(cost=0.3), {}
    sizes = [count] * method.first
    hidden = torch.randn(count, 64, generator=torch.Generator().manual_seed(0))
    place = torch.arange(count)
    for layer in method.layers(depth):
        here = span(
            hidden, torch.rand(len(hidden)), layer=layer, depth=depth, place=place, grid=(1, 100), memory=memory
        )
        merge = method.merge_span(here)
        hidden, place = merge.apply(hidden), merge.gather(place)
        sizes.append(len(hidden))
    assert sum(sizes) / (depth * count) == pytest.approx(0.3, abs=0.001)


def test_framefusion_averages_a_standing_position() -> None:
    hidden = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)).repeat(5, 1, 1)
    hidden = hidden + 0.01 * torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1))
    here = span(hidden.flatten(0, 1), None, layer=0, place=torch.arange(20), grid=(2, 2), frames=5)
    merge = FrameFusion(cost=0.05, first=0).merge_span(here)
    torch.testing.assert_close(merge.apply(here.hidden), hidden.mean(0))


def test_prunevid_keeps_a_share_of_every_frame() -> None:
    place = torch.arange(30)
    attention = torch.linspace(1, 0, 30)  # the first frame has it all
    here = span(torch.zeros(30, 1), attention, place=place, grid=(2, 5), frames=3)
    merge = PruneVid(inner_retention=0.4).merge_span(here)
    assert (merge.anchor // 10).bincount().tolist() == [4, 4, 4]


def test_any_outer_method_takes_any_inner_stage() -> None:
    for outer in (EVS(), VisionZip(), HoliTom()):
        for inner in INNER:
            both = outer | inner
            assert both.layers(28) == inner.layers(28)
            assert (both.needs, both.attention, both.compacts) == (outer.needs, inner.attention, inner.compacts)
    with pytest.raises(TypeError, match="left"):
        EVS() | VidCom2()
    with pytest.raises(TypeError, match="after that of FastV"):
        FastV() | FastV()
    assert isinstance(EVS() | FastV(), Chain)
    with pytest.raises(TypeError, match="earlier stage"):
        Chain(inside=HoliTom(), tower=OneRow())
    with pytest.raises(TypeError, match="before the LLM, where"):
        Chain(before=FastV(), inside=HoliTom())
    with pytest.raises(ValueError, match="two or three"):
        Chain(before=EVS())
    with pytest.raises(TypeError, match="methods, got 3"):
        Chain.of(EVS(), 3)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OneRow(Method):
    """A stage in the tower for tests: all frames share the rows of the first."""

    name: ClassVar[str] = "onerow"

    def tower_layers(self, depth: int) -> tuple[int, ...]:
        return (depth // 2,)

    def merge_tower(self, states: TowerStates) -> Merge:
        frames, places, _ = states.hidden.shape
        rows = torch.arange(places)
        return Merge(rows.repeat(frames), torch.full((frames * places,), 1 / frames), rows)


def test_a_chain_has_up_to_three_stages() -> None:
    whole = OneRow() | VisionZip() | FastV()
    assert whole == OneRow() | (VisionZip() | FastV()) == Chain(tower=OneRow(), before=VisionZip(), inside=FastV())
    assert (whole.name, whole.stages) == ("onerow|visionzip|fastv", ("tower", "before", "inside"))
    assert (whole.tower_layers(26), whole.layers(28)) == ((13,), (2,))
    states = TowerStates(torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)), 13, 26, (2, 2))
    merge = whole.merge_tower(states).validate()
    rows = merge.apply(states.hidden.flatten(0, 1))
    torch.testing.assert_close(rows, states.hidden.mean(0))
    assert torch.equal(merge.expand(rows), rows.repeat(3, 1))
    two = OneRow() | HoliTom(retention=0.2)
    assert (two.before, two.inside, two.layers(28)) == (HoliTom(retention=0.2), None, (18,))
    assert (OneRow() | HoliTom() | FastV()).layers(28) == (2,)
    assert (OneRow() | FastV()).token_count(2, (3, 4)) == 24
    assert (OneRow() | VisionZip()).with_token_count(5, 2, (3, 4)).token_count(2, (3, 4)) == 5
    assert EVS().tower_layers(26) == ()
    with pytest.raises(TypeError, match="no stage after"):
        OneRow() | OneRow()
    with pytest.raises(TypeError, match="inside the vision tower"):
        EVS().merge_tower(states)
    with pytest.raises(ValueError, match=r"\(T, P, D\)"):
        TowerStates(torch.zeros(3, 5, 8), 0, 26, (2, 2))
    with pytest.raises(ValueError, match=r"\(P = 5,\)"):
        TowerStates(torch.zeros(3, 5, 8), 0, 26, (2, 2), leading=1, order=torch.arange(4))


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (FastV, {"layer": 0}),
        (FastV, {"inner_retention": 0.0}),
        (FastV, {"keep": 0}),
        (PyramidDrop, {"shares": (0.5,)}),
        (PyramidDrop, {"shares": (0.25, 0.5, 0.1)}),
        (FrameFusion, {"cost": 0}),
        (FrameFusion, {"similarity": 2}),
        (FrameFusion, {"merge_floor": -1}),
        (FrameFusion, {"depth": 0}),
        (FrameFusion, {"first": -1}),
    ],
)
def test_settings_out_of_range_are_refused(cls: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        cls(**wrong)


def test_a_model_too_shallow_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 2"):
        PyramidDrop().layers(2)
    with pytest.raises(ValueError, match="ascending"):
        PyramidDrop(layers_at=(3, 3, 3)).layers(28)
    with pytest.raises(ValueError, match="layer"):
        FastV(layer=30).layers(28)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        FrameFusion(first=4).layers(4)


def test_random_tokens_inside_are_the_same_for_each_prompt_and_merge_into_their_likes() -> None:
    hidden = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    dropping = RandomInner(inner_retention=0.25).merge_span(span(hidden, torch.zeros(40)))
    again = RandomInner(inner_retention=0.25).merge_span(span(hidden * 3, torch.ones(40)))
    other = RandomInner(inner_retention=0.25, seed=1).merge_span(span(hidden, torch.zeros(40)))
    assert dropping.anchor.tolist() == again.anchor.tolist() != other.anchor.tolist()
    torch.testing.assert_close(dropping.apply(hidden), hidden[dropping.anchor], rtol=0, atol=0)
    merging = RandomInner(inner_retention=0.25, merge=True).merge_span(span(hidden, torch.zeros(40)))
    assert merging.anchor.tolist() == dropping.anchor.tolist()
    out = merging.apply(hidden)
    alike = torch.nn.functional.cosine_similarity(hidden[:, None], hidden[merging.anchor][None], dim=-1).argmax(1)
    for number, anchor in enumerate(merging.anchor.tolist()):
        members = [row for row in range(40) if row == anchor or (row not in merging.anchor and alike[row] == number)]
        torch.testing.assert_close(out[number], hidden[members].mean(0))
