"""What every outer method promises about the maps it makes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_zoo import OFFICIAL, OUTER, VARIANTS, make_video, videos
from official import OfficialDyCoke, OfficialFlashVID, OfficialVisionZip
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.methods.cells import CellMean, CellSample
from holitom.methods.divprune import DivPrune
from holitom.methods.dycoke import DyCoke
from holitom.methods.evs import EVS
from holitom.methods.exact import ExactMethod
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.prunevid import PruneVid
from holitom.methods.unifiedst import UnifiedST
from holitom.methods.vcast import VCast
from holitom.methods.vidcom2 import VidCom2
from holitom.methods.visionzip import VisionZip
from holitom.tokens import VideoTokens, exact_count

each_variant = pytest.mark.parametrize("method", VARIANTS, ids=repr)
each_class = pytest.mark.parametrize("cls", OUTER, ids=lambda cls: cls.__name__)


def same(a: Merge, b: Merge) -> bool:
    return all(torch.equal(x, y) for x, y in zip((*a.edges(), a.anchor), (*b.edges(), b.anchor), strict=True))


@each_variant
@given(video=videos())
@settings(max_examples=25, deadline=None)
def test_maps_are_sound(method: Method, video: VideoTokens) -> None:
    merge = method.merge_video(video)
    merge.validate()  # weights of an output sum to 1, anchors are among their own sources
    assert merge.inputs == video.frames * video.positions
    assert 1 <= merge.outputs <= merge.inputs
    assert len(merge.anchor.unique()) == merge.outputs
    out = merge.apply(video.features.flatten(0, 1))
    assert out.dtype == video.features.dtype
    assert torch.isfinite(out).all()
    try:
        expected = method.token_count(video.frames, video.grid)
    except ValueError as error:
        assert "content" in str(error)  # noqa: PT017 - that is the promise for counts that depend on it
    else:
        assert merge.outputs == expected


@each_variant
@given(video=videos())
@settings(max_examples=5, deadline=None)
def test_the_same_video_gives_the_same_map(method: Method, video: VideoTokens) -> None:
    assert same(method.merge_video(video), method.merge_video(video))


@pytest.mark.parametrize("method", OFFICIAL, ids=repr)
@given(video=videos())
@settings(max_examples=25, deadline=None)
def test_official_maps_are_sound_up_to_their_quirks(method: Method, video: VideoTokens) -> None:
    method.merge_video(video).validate(normalised=False)


@each_class
@given(video=videos(), retention=st.sampled_from([1e-6, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.77, 0.9, 1.0]))
@settings(max_examples=25, deadline=None)
def test_exact_is_exact(cls: Any, video: VideoTokens, retention: float) -> None:
    method = cls(retention=retention, exact=True)
    merge = method.merge_video(video).validate()
    assert merge.outputs == method.token_count(video.frames, video.grid)
    assert merge.outputs == exact_count(video.frames, video.grid, retention)
    assert len(merge.anchor.unique()) == merge.outputs


@each_class
@given(video=videos())
@settings(max_examples=10, deadline=None)
def test_a_tiny_retention_keeps_a_token(cls: Any, video: VideoTokens) -> None:
    if cls is DyCoke and video.frames * video.positions > 1:
        if (video.frames + 3) // 4 * video.positions > 1:  # its reference frames stay whole
            with pytest.raises(ValueError, match="exact=True"):
                cls(retention=1e-9).merge_video(video)
    else:
        merge = cls(retention=1e-9).merge_video(video).validate()
        assert merge.outputs >= 1


# A retention of 1 changes nothing, except where the definition shares a budget out over frames and caps it (VidCom2),
# merges what is static whatever the budget (PruneVid), lets tokens of one direction join (FastVID), or fixes another
# order (VisionZip: dominant tokens first).
NO_IDENTITY = (VidCom2, PruneVid, FastVID, VisionZip)


@pytest.mark.parametrize("cls", [cls for cls in OUTER if cls not in NO_IDENTITY], ids=lambda cls: cls.__name__)
@given(video=videos())
@settings(max_examples=25, deadline=None)
def test_a_retention_of_one_is_the_identity(cls: Any, video: VideoTokens) -> None:
    merge = cls(retention=1.0).merge_video(video)
    assert same(merge, Merge.identity(merge.inputs))


@pytest.mark.parametrize("cls", OUTER, ids=lambda c: c.__name__)
@given(video=videos())
@settings(max_examples=25, deadline=None)
def test_an_exact_retention_of_one_is_the_identity(cls: Any, video: VideoTokens) -> None:
    merge = cls(retention=1.0, exact=True).merge_video(video)
    assert torch.equal(merge.apply(video.features.flatten(0, 1)), video.features.flatten(0, 1))


@each_class
@pytest.mark.parametrize("motion", [0.0, 0.05, 1.0])
def test_every_map_on_the_way_is_valid_too(cls: Any, motion: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Merge] = []
    check = Merge.__post_init__
    monkeypatch.setattr(Merge, "__post_init__", lambda merge: (made.append(merge), check(merge)))
    for retention in (0.05, 0.3, 0.9):
        cls(retention=retention, exact=True).merge_video(make_video(9, (5, 6), 16, 3, motion))
    assert made
    for merge in made:
        merge.validate()


@dataclasses.dataclass(frozen=True)
class Loud(ExactMethod):
    """A method of somebody else that keeps what is above the mean, without a count of its own."""

    retention: float | None = 0.5
    exact: bool = False

    def choose(self, video: VideoTokens) -> tuple[torch.Tensor, torch.Tensor]:
        norms = video.features.float().norm(dim=-1).flatten()
        return norms > norms.mean(), norms


def test_exact_counts_come_with_the_base() -> None:
    video = make_video(4, (5, 6), 16, 0, 1.0)
    norms = video.features.norm(dim=-1).flatten()
    assert Loud().merge_video(video).anchor.tolist() == (norms > norms.mean()).nonzero()[:, 0].tolist()
    merge = Loud(retention=0.1, exact=True).merge_video(video)
    assert merge.anchor.tolist() == norms.topk(12).indices.sort().values.tolist()
    assert Loud().with_token_count(7, 4, (5, 6)) == Loud(retention=7 / 120, exact=True)
    with pytest.raises(ValueError, match="depends on the video's content"):
        Loud().token_count(4, (5, 6))
    with pytest.raises(ValueError, match=r"Loud\(retention=0\.3, exact=True\)"):
        Loud(retention=None, exact=True)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned as new memory."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:  # sparse ones are made of such
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@each_class
def test_no_method_allocates_frames_times_positions_squared(cls: Any) -> None:
    frames = {DivPrune: 60, UnifiedST: 75}.get(cls, 120)  # those two take time as its square
    grid, width = (10, 10), 4
    positions = grid[0] * grid[1]
    for motion in (0.02, 1.0):
        video = make_video(frames, grid, width, 0, motion)
        with LargestTensor() as largest:
            cls(retention=0.3).merge_video(video)
        assert largest.elements < min(frames * positions**2, frames**2 * positions)


def test_unlike_tokens_outlive_repeated_ones() -> None:
    """A clip that stands still but for one moving position: pruning by redundancy keeps the mover throughout."""
    video = make_video(8, (4, 4), 16, 0, 0.0)
    features = video.features.clone()
    features[:, 5] = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    moving = dataclasses.replace(video, features=features)
    places = {t * 16 + 5 for t in range(8)}
    for method in (EVS(retention=0.25), DyCoke(k=0.9), DivPrune(retention=0.2)):
        kept = set(method.merge_video(moving).anchor.tolist())
        assert len(places & kept) >= 7, method


def test_static_tokens_become_their_mean_over_time() -> None:
    video = make_video(8, (3, 3), 16, 0, 0.0)
    merge = PruneVid(scene_ratio=0.1).merge_video(video)
    assert merge.outputs == 9  # all nine positions are static, and nine are too few to be clustered
    torch.testing.assert_close(merge.apply(video.features.flatten(0, 1)), video.features[0])


def test_visionzip_normalises_what_the_official_code_sums() -> None:
    video = make_video(2, (6, 6), 8, 3, 1.0)
    x = video.features.flatten(0, 1)
    ours, theirs = (method.merge_video(video) for method in (VisionZip(), OfficialVisionZip()))
    alike = torch.cosine_similarity(ours.apply(x), theirs.apply(x), dim=-1)
    torch.testing.assert_close(alike, torch.ones_like(alike))
    assert theirs.apply(x).norm() > ours.apply(x).norm()


def test_flashvid_averages_trees_that_the_official_code_lets_grow() -> None:
    video = make_video(12, (4, 4), 8, 3, 0.0)  # nothing moves: trees as deep as the clip
    kinds = (FlashVID, OfficialFlashVID)
    norm = [kind(retention=0.5, min_segments=1).merge_video(video) for kind in kinds]
    x = video.features.flatten(0, 1)
    assert norm[0].apply(x).norm(dim=-1).max() <= x.norm(dim=-1).max() * 1.001
    assert norm[1].apply(x).norm(dim=-1).max() > x.norm(dim=-1).max() * 1.5


def test_vcast_gives_frames_where_the_video_turns_more() -> None:
    still = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    step = torch.randn(8, generator=torch.Generator().manual_seed(1))
    way = torch.tensor([0.0, 1, 2, 3, 4, 3, 2, 1, 0])  # turns back at frame 4
    video = VideoTokens(still + way[:, None, None] * step, (4, 4))
    counts = torch.bincount(VCast(retention=0.5).merge_video(video).anchor // 16, minlength=9)
    assert int(counts.argmax()) == 4


def test_missing_inputs_are_named() -> None:
    bare = VideoTokens(torch.randn(4, 9, 5), (3, 3))
    for method in (VisionZip(), FastVID(), FlashVID()):
        with pytest.raises(ValueError, match=type(method).__name__):
            method.merge_video(bare)
    scored = dataclasses.replace(bare, scores=torch.rand(4, 9))
    with pytest.raises(ValueError, match="compare='features'"):
        VisionZip().merge_video(scored)
    with pytest.raises(ValueError, match="scenes='features'"):
        FastVID(scenes="embeddings").merge_video(scored)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        *((cls, {"retention": value}) for cls in OUTER for value in (0, 1.5, -0.1, float("nan"))),
        (EVS, {"pruning_rate": 1.0}),
        (EVS, {"pruning_rate": 0.5, "exact": True}),
        (VidCom2, {"pruning_rate": -0.1}),
        (VisionZip, {"dominant": 3}),
        (VisionZip, {"dominant": 0, "contextual": 0}),
        (VisionZip, {"compare": "values"}),
        (FastVID, {"variant": "qwen"}),
        (FlashVID, {"selection": "best"}),
        (DyCoke, {"k": 1.0}),
        (DyCoke, {"exact": True}),
        (PruneVid, {"tau": 2}),
        (PruneVid, {"exact": True}),
        (PruneVid, {"layer": 0}),
        (FastVID, {"interval": 0}),
        (FlashVID, {"expansion": 0}),
        (VCast, {"temperature": 0}),
    ],
)
def test_settings_out_of_range_are_refused(cls: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        cls(**wrong)


def test_dycoke_says_what_it_cannot_reach() -> None:
    with pytest.raises(ValueError, match=r"at least 0\.250"):
        DyCoke(retention=0.1).token_count(32, (14, 14))
    assert DyCoke(retention=0.1, exact=True).token_count(32, (14, 14)) == exact_count(32, (14, 14), 0.1)
    assert OfficialDyCoke().token_count(32, (14, 14)) == 3098


def test_controls_keep_one_token_of_every_cell() -> None:
    video = make_video(3, (5, 7), 8, 0, 1.0)
    x = video.features.flatten(0, 1)
    for method in (CellSample(), CellMean()):
        merge = method.merge_video(video)
        assert merge.outputs == 3 * 3 * 4
        frame, place = merge.anchor // 35, merge.anchor % 35
        assert len({(int(t), int(n) // 7 // 2, int(n) % 7 // 2) for t, n in zip(frame, place, strict=True)}) == 36
    torch.testing.assert_close(CellMean().merge_video(video).apply(x)[0], x[[0, 1, 7, 8]].mean(0))
    torch.testing.assert_close(CellMean().merge_video(video).apply(x)[11], x[34])
    other = CellSample(seed=1).merge_video(video)
    assert not torch.equal(other.anchor, CellSample().merge_video(video).anchor)
