"""What methods do with settings and tensors that are not as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from golden import span
from matrix import some
from method_zoo import VARIANTS, make_video
from test_methods_inner import INNER

from holitom import HoliTom, Merge, SpanStates, TowerStates, VideoTokens
from holitom.methods import EVS, FastV, FrameFusion, Method, PyramidDrop, VisionZip, parse
from holitom.methods.registry import BUILTIN
from holitom.methods.settings import kinds_of

METHODS = [cls() for cls in BUILTIN.values()]
OUTER = [*VARIANTS, *(each for each in METHODS if "before" in each.stages and each not in VARIANTS)]
BAD = (float("nan"), float("inf"), -float("inf"))
TOWER = [each for each in METHODS if "tower" in each.stages]
WRONG: dict[Any, tuple[Any, ...]] = {
    int: ("7", 1.5, True, None),
    float: ("0.5", True, None),
    bool: ("no", 1, 0),
    float | None: ("0.5", False),
    int | None: (2.0, True),
}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_setting_of_the_wrong_type_names_itself(method: Method) -> None:
    for key, kind in kinds_of(type(method)).items():
        for value in WRONG.get(kind, (object(),)):
            with pytest.raises(TypeError, match=f"{type(method).__name__}'s {key} must be .*got "):
                type(method)(**{key: value})


def test_numbers_of_numpy_are_numbers() -> None:
    method = HoliTom(retention=np.float32(0.25), neighbours=np.int64(5), layer=np.int32(3), exact=np.True_)
    assert method == HoliTom(retention=0.25, neighbours=5, layer=3, exact=True)
    assert [type(getattr(method, name)) for name in ("retention", "neighbours", "layer", "exact")] == [
        float,
        int,
        int,
        bool,
    ]
    assert PyramidDrop([8, np.int64(16)], [np.float64(0.5), 0.25]) == PyramidDrop((8, 16), (0.5, 0.25))
    with pytest.raises(TypeError, match="first must be an integer, got "):
        FrameFusion(first=np.float64(2))


@pytest.mark.parametrize("cls", [HoliTom, FastV, VisionZip])
def test_a_forgotten_second_call_says_so(cls: Any) -> None:
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(\)\(model\)"):
        cls(torch.nn.Linear(2, 2))


def test_annotations_that_cannot_be_read_check_nothing() -> None:
    @dataclass(frozen=True)
    class Foreign(Method):
        setting: Missing = 3  # type: ignore[name-defined]  # noqa: F821

    assert Foreign(setting="word").setting == "word"


def test_exact_needs_a_retention_that_is_in_range() -> None:
    for wrong in (0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"retention .* \(0, 1\]"):
            EVS(retention=wrong)


DTYPES = (torch.float64, torch.bfloat16, torch.float16)


def in_other_surroundings(make: Callable[[], Any]) -> list[Any]:
    """What a call gives under autocast, and with other default devices and dtypes; the ordinary ones come back."""
    with torch.autocast("cpu", torch.bfloat16):
        made = [make()]
    with torch.device("meta"):  # where nothing can be computed
        made.append(make())
    try:
        for dtype in DTYPES:
            torch.set_default_dtype(dtype)
            made.append(make())
    finally:
        torch.set_default_dtype(torch.float32)
    return made


def equal(a: Merge, b: Merge) -> bool:
    assert a.weight.dtype == b.weight.dtype == torch.float32
    return all(torch.equal(x, y) for x, y in zip((*a.edges(), a.anchor), (*b.edges(), b.anchor), strict=True))


VIDEOS = [make_video(9, (6, 6), 16, seed, motion) for seed, motion in enumerate((0.02, 0.2, 1.0))]


@pytest.mark.parametrize("method", OUTER, ids=repr)
def test_maps_do_not_depend_on_surroundings(method: Method) -> None:
    settings = [method]
    if type(method)() == method and hasattr(method, "exact"):
        settings.append(replace(method, retention=0.3, exact=True))

    def merged(each: Method, video: VideoTokens) -> tuple[Merge, torch.Tensor]:
        merge = each.merge_video(video)
        return merge, merge.apply(video.features.flatten(0, 1))

    for each, video in product(settings, VIDEOS):
        expected, out = merged(each, video)
        for merge, found in in_other_surroundings(partial(merged, each, video)):
            assert equal(merge, expected)
            assert torch.equal(found, out)


def spans(dtype: torch.dtype = torch.float32) -> Iterator[SpanStates]:
    random = torch.Generator().manual_seed(0)
    for layer in (2, 11, 18, 20, 7, 14, 21):
        hidden = torch.randn(1, 9, 16, generator=random) + 0.3 * torch.randn(4, 9, 16, generator=random)
        attention = torch.rand(36, generator=random)
        yield span(hidden.flatten(0, 1).to(dtype), attention, layer=layer, frames=4, grid=(3, 3))


@pytest.mark.parametrize("method", INNER, ids=repr)
def test_inner_maps_do_not_depend_on_surroundings(method: Method) -> None:
    made = [each for each in spans() if each.layer in method.layers(28)]

    def merged() -> list[Merge]:
        return [method.merge_span(replace(each, memory={})) for each in made]

    expected = merged()
    for found in in_other_surroundings(merged):
        assert all(equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("method", "bad"), some(product(OUTER, BAD), 3), ids=repr)
def test_what_is_not_finite_never_breaks_a_map(method: Method, bad: float) -> None:
    names = ("scores", "keys", "frame_embeddings", "question")
    unread = [name for name in names if name not in method.needs]  # together: none of them is looked at
    fields = [["features"], *([name] for name in names if name in method.needs), *([unread] if unread else [])]
    places = ((0,), (1,), (-1, slice(3, 7)), (slice(None),))
    for video, together, place in product(VIDEOS, fields, places):
        bad_fields = {name: getattr(video, name).clone() for name in together}
        for value in bad_fields.values():
            value[place] = bad
        merge = method.merge_video(replace(video, **bad_fields)).validate()
        assert merge.outputs >= 1
        assert len(merge.anchor.unique()) == merge.outputs
        try:
            count = method.token_count(video.frames, video.grid)
        except ValueError:
            continue
        assert merge.outputs == count


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", INNER, ids=repr)
def test_what_is_not_finite_never_breaks_an_inner_map(method: Method, bad: float) -> None:
    for each in spans():
        if each.layer not in method.layers(28):
            continue
        for part in (slice(3), slice(None)):
            for name in ("hidden", "attention"):
                value = getattr(each, name).clone()
                value[part] = bad
                kept = method.merge_span(replace(each, memory={}, **{name: value})).validate().outputs
                assert kept >= 1
                assert kept == method.merge_span(replace(each, memory={})).outputs or isinstance(method, FrameFusion)


def states(method: Method, bad: float | None = None) -> Iterator[TowerStates]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 20, 16, generator=random) + 0.1 * torch.randn(8, 20, 16, generator=random)
    for place in ((3,), (slice(None), 4), (slice(None),)) if bad is not None else ((),):
        here = hidden.clone()
        if place:
            here[place] = bad
        yield TowerStates(here, method.tower_layers(26)[0], 26, (4, 5))


@pytest.mark.parametrize("method", TOWER, ids=repr)
def test_tower_maps_do_not_depend_on_surroundings(method: Method) -> None:
    [made] = states(method)
    expected = method.merge_tower(made)
    for found in in_other_surroundings(lambda: method.merge_tower(made)):
        assert equal(found, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", TOWER, ids=repr)
def test_what_is_not_finite_never_breaks_a_tower_map(method: Method, bad: float) -> None:
    for made in states(method, bad):
        merge = method.merge_tower(made).validate()
        assert (merge.target >= 0).all()


def test_stages_are_called_by_the_names_of_their_arguments() -> None:
    [made] = states(TOWER[0])
    assert equal(TOWER[0].merge_tower(states=made), TOWER[0].merge_tower(made))
    assert equal(EVS().merge_video(video=VIDEOS[0]), EVS().merge_video(VIDEOS[0]))
    [held] = (each for each in spans() if each.layer == 2)
    assert equal(FastV(layer=2).merge_span(span=held), FastV(layer=2).merge_span(held))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'video'"):
        EVS().merge_video()  # type: ignore[call-arg]


def test_a_stage_from_elsewhere_runs_without_autocast_too() -> None:
    """One of a class that is no method; and one that is switched off stays off in what is derived."""
    autocast = []

    class Halves:
        def merge_video(self, video: VideoTokens) -> Merge:
            autocast.append(torch.is_autocast_enabled("cpu"))
            return Merge.identity(video.frames * video.positions)

    class Mixed(Halves, Method):
        pass

    class Off(EVS):
        merge_video = Method.merge_video

    class Derived(Off):
        pass

    with torch.autocast("cpu", torch.bfloat16):
        Mixed().merge_video(VIDEOS[0])
    assert autocast == [False]
    assert (Mixed.stages, Off.stages, Derived.stages) == (("before",), (), ())


def test_tokens_that_are_not_finite_go_first() -> None:
    """They would spoil every answer: a method that ranks each token by itself keeps them last."""
    video = VIDEOS[2]
    features, scores = video.features.clone(), video.scores.clone()
    features[3, 5] = float("nan")
    scores[:, 5] = float("nan")
    for text in ("evs", "dycoke", "divprune", "holitom:layer=none", "visionzip"):
        anchors = parse(text).merge_video(replace(video, features=features, scores=scores)).anchor
        assert not (anchors == 3 * 36 + 5).any(), text


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"grid": (6, 6.0)}, ValueError, r"two integers.*6\.0"),
        ({"grid": (36,)}, ValueError, "two integers"),
        ({"grid": (-6, -6)}, ValueError, "at least 1"),
        ({"scores": [[0.0] * 36] * 9}, TypeError, r"scores must be a tensor.*list"),
        ({"keys": torch.zeros(9, 36)}, ValueError, r"keys must start with \(T, N\) = \(9, 36\)"),
        ({"frame_embeddings": torch.zeros(8, 4)}, ValueError, r"frame_embeddings must start with \(T,\) = \(9,\)"),
        ({"scores": torch.zeros(9, 36, device="meta")}, ValueError, "features on cpu and scores on meta"),
    ],
)
def test_video_tokens_are_checked(wrong: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        replace(VIDEOS[0], **wrong)
    assert replace(VIDEOS[0], grid=np.array([6, 6])).grid == (6, 6)
