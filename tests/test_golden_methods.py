"""Every method gives what its official code gives, from the same inputs."""

from __future__ import annotations

import math

import pytest
import torch
from golden import TOLERANCE, Case, assert_reproduces, cases, kept_sequence, of_kind, span, video_of
from official import (
    OfficialCDPruner,
    OfficialDyCoke,
    OfficialFlashVID,
    OfficialVCast,
    OfficialVisionZip,
    decode_selection,
    visionzip_image,
)

from holitom.methods.divprune import DivPrune
from holitom.methods.evs import EVS
from holitom.methods.fastv import FastV
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.forestprune import ForestPrune
from holitom.methods.framefusion import FrameFusion
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.methods.vidcom2 import VidCom2
from holitom.ops import last_query_attention
from holitom.ops.temporal import frame_means
from holitom.tokens import VideoTokens


def each(golden: list[Case] | tuple[Case, ...]) -> pytest.MarkDecorator:
    assert golden
    return pytest.mark.parametrize("case", golden, ids=repr)


@each(cases("evs"))
def test_evs(case: Case) -> None:
    method = EVS(pruning_rate=case.params["q"])
    assert_reproduces(method.merge_video(video_of(case)), case.features, case.index, None)
    side = case.params["g"]
    assert method.token_count(case.params["T"], (side, side)) == case.n_out


@each(cases("fastv"))
def test_fastv(case: Case) -> None:
    start, visual = case.params["start"], case.params["visual"]
    attention = case.attention.mean(0)
    merge = FastV(keep=case.params["keep"]).merge_span(span(torch.zeros(visual, 1), attention[start : start + visual]))
    assert kept_sequence(merge, start, len(attention)) == case.keep.tolist()


@each(of_kind("visionzip", None))
def test_visionzip(case: Case) -> None:
    method = OfficialVisionZip(dominant=case.params["dominant"], contextual=case.params["contextual"])
    merge = method.merge_video(video_of(case, scores=case.attention, keys=case.metric))
    out, index = case.out, case.index
    if case.params["newline"] == "grid":
        # Newlines are the model adapter's business, and the official code sorts these rows by wrong labels: here only
        # which tokens come out is compared, frame by frame.
        order = index[index >= 0].argsort()
        assert (index < 0).sum() == case.params["T"] * case.params["g"]
        out, index = out[index >= 0][order], index[index >= 0][order]
        order = merge.anchor.argsort()
        assert merge.anchor[order].tolist() == index.tolist()
        torch.testing.assert_close(merge.apply(case.features.flatten(0, 1))[order], out, atol=1e-4, rtol=0)
    else:
        assert_reproduces(merge, case.features, index, out)


@each(of_kind("visionzip", "image"))
def test_visionzip_of_an_image(case: Case) -> None:
    merge = visionzip_image(case.attention, case.metric, case.params["dominant"], case.params["contextual"])
    assert_reproduces(merge, case.features, case.index, case.out)


@each(of_kind("dycoke", "ttm"))
def test_dycoke(case: Case) -> None:
    method = OfficialDyCoke(k=case.params["k"])
    assert_reproduces(method.merge_video(video_of(case)), case.features, case.index, case.out)
    side = case.params["g"]
    assert method.token_count(case.params["T"], (side, side)) == case.n_out


@each(of_kind("dycoke", "cache"))
def test_dycoke_while_decoding(case: Case) -> None:
    start, visual, seen = case.params["start"], case.params["visual"], None
    for step in range(case.params["steps"]):
        attention = getattr(case, f"attention{step}")
        kept, seen = decode_selection(attention, start, visual, seen, case.params["p"])
        assert ([] if kept is None else kept.tolist()) == getattr(case, f"keep{step}").tolist()


@each(cases("vidcom2"))
def test_vidcom2(case: Case) -> None:
    method = VidCom2(pruning_rate=case.params["q"]) if "q" in case.params else VidCom2(retention=case.params["base"])
    merge = method.merge_video(video_of(case))
    index = case.index
    if case.params["variant"] == "grid":  # counted with one newline a row
        side = case.params["g"]
        index = index[index % (side + 1) < side]
        index = index // (side + 1) * side + index % (side + 1)
    assert merge.anchor.tolist() == index.tolist()
    if "per_frame" in case.tensors:
        counts = torch.bincount(merge.anchor // case.features.shape[1], minlength=case.params["T"])
        assert counts.tolist() == case.per_frame.tolist()


@each(cases("divprune"))
def test_divprune(case: Case) -> None:
    assert_reproduces(DivPrune(case.params["ratio"]).merge_video(video_of(case)), case.features, case.index, None)


@each(cases("cdpruner"))
def test_cdpruner(case: Case) -> None:
    images, positions = case.features.shape[:2]
    side = math.isqrt(positions)
    method = OfficialCDPruner(
        case.n_out / (images * positions), image_embeds=case.image_embeds, text_embeds=case.text_embeds
    )
    merge = method.merge_video(VideoTokens(case.features, (side, side)))
    wanted = case.keep + torch.arange(images)[:, None] * positions
    assert_reproduces(merge, case.features, wanted.flatten(), case.out)


@each(cases("vcast"))
def test_vcast(case: Case) -> None:
    method = OfficialVCast(retention=case.params["r"], min_tokens=case.params["min_k"])
    merge = method.merge_video(video_of(case))
    assert_reproduces(merge, case.features, case.index, None)
    counts = torch.bincount(merge.anchor // case.features.shape[1], minlength=case.params["T"])
    assert counts.tolist() == case.per_frame.tolist()


@each(cases("forestprune"))
def test_forestprune(case: Case) -> None:
    p = case.params
    method = ForestPrune(p["keep_ratio"], p["preselect"], p["tau"], 1 - p["tau_spatial"])
    nodes, _ = method.preselected(case.features)
    first = torch.arange(p["T"])[:, None] * case.features.shape[1]
    assert (nodes + first).flatten().tolist() == case.preselected.tolist()
    assert_reproduces(method.merge_video(video_of(case)), case.features, case.index, case.out)
    assert method.token_count(p["T"], (p["g"], p["g"])) == case.n_out


@each(cases("pyramiddrop"))
def test_pyramiddrop(case: Case) -> None:
    heads, width, start = case.params["heads"], case.params["dh"], case.params["start"]
    method = PyramidDrop(layers_at=(8, 16, 24), shares=tuple(case.params["ratios"]))
    alive, visual = torch.arange(len(case.hidden)), case.params["visual"]
    for stage, layer in enumerate(method.layers(32)):
        hidden = case.hidden[alive]
        query = (hidden[-1] @ case.Wq[stage].T).view(heads, width)
        key = (hidden @ case.Wk[stage].T).view(-1, heads, width).transpose(0, 1)
        attention = last_query_attention(query, key, width**-0.5)[start : start + visual]
        here = span(hidden[start : start + visual], attention, layer=layer, depth=32, entered=case.params["visual"])
        merge = method.merge_span(here)
        alive, visual = alive[kept_sequence(merge, start, len(alive))], merge.outputs
        assert alive.tolist() == getattr(case, f"keep{stage}").tolist()


@each(cases("fastvid"))
def test_fastvid(case: Case) -> None:
    p = case.params
    variant = "video" if p.get("variant") == "llava_video" else "onevision"
    method = FastVID(p["r"], p["c"], p["tau"], p["d"], p["p"], p["beta"], variant=variant, scenes="embeddings")
    video = video_of(case, scores=case.attention, frame_embeddings=case.frame_features)
    assert [last - first + 1 for first, last in method.cut(video)] == case.segments.tolist()
    merge, index, out = method.merge_video(video), case.index, case.out
    if variant == "video":  # one newline a row, counted in the index
        side = p["g"]
        out, index = out[index % (side + 1) < side], index[index % (side + 1) < side]
        index = index // (side + 1) * side + index % (side + 1)
        assert merge.outputs == method.token_count(p["T"], (side, side))
    assert_reproduces(merge, case.features, index, out)


@each(of_kind("prunevid", "outer"))
def test_prunevid(case: Case) -> None:
    method = PruneVid(case.params["tau"], case.params["cluster_ratio"], case.params["temporal_segment_ratio"])
    assert [last - first + 1 for first, last in method.scenes(case.features)] == case.windows.tolist()
    merge = method.merge_video(video_of(case))
    torch.testing.assert_close(merge.apply(case.features.flatten(0, 1)), case.out, atol=TOLERANCE, rtol=0)


@each(of_kind("prunevid", "inner"))
def test_prunevid_inside(case: Case) -> None:
    place, frame, side = [], 0, 1000
    for window, static, dynamic in zip(case.windows, case.static, case.dynamic, strict=True):
        place += [(frame + int(window) // 2) * side] * int(static)
        for _ in range(int(window)):
            place += [frame * side] * (int(dynamic) // int(window))
            frame += 1
    attention = case.attention.amax((0, 1))
    here = span(torch.zeros(len(attention), 1), attention, place=torch.tensor(place), grid=(side, 1), frames=frame)
    merge = PruneVid(inner_retention=case.params["alpha"]).merge_span(here)
    assert merge.anchor.tolist() == case.keep.tolist()


@each(of_kind("flashvid", "outer"))
def test_flashvid(case: Case) -> None:
    p = case.params
    method = OfficialFlashVID(
        p["r"],
        p["alpha"],
        p["tau"],
        p["segment_threshold"] if p["do_segment"] else None,
        p["min_segment_num"],
        p["expansion"],
        selection=p["method"],
    )
    segments = [last - first + 1 for first, last in method.cut(frame_means(case.features))]
    assert segments == [n for n in case.segments.tolist() if n] or not p["do_segment"]
    assert_reproduces(method.merge_video(video_of(case, scores=case.attention)), case.features, case.index, case.out)


@each(of_kind("flashvid", "inner"))
def test_flashvid_inside(case: Case) -> None:
    start, visual = case.params["start"], case.params["visual"]
    attention = case.attention.mean(0)
    method = FlashVID(inner_retention=case.params["ratio"])
    merge = method.merge_span(span(torch.zeros(visual, 1), attention[start : start + visual]))
    assert kept_sequence(merge, start, len(attention)) == case.keep.tolist()


@each(of_kind("framefusion", "merge"))
def test_framefusion_merges(case: Case) -> None:
    p = case.params
    visual = case.patch_type >= 0
    side = int(case.patch_type.max()) + 1
    place = case.patch_type[visual]  # earlier tokens of a position count as earlier frames
    for kind in range(side):
        mine = place == kind
        place[mine] += torch.arange(int(mine.sum())) * side
    here = span(case.hidden[visual], None, layer=0, place=place, grid=(side, 1), memory={"merged": list(p["sparsity"])})
    merge = FrameFusion(p["cost"], p["similarity_bound"], p["ratio_bound"], first=0, depth=28).merge_span(here)
    assert kept_sequence(merge, p["start"], len(visual)) == case.keep.tolist()
    out = torch.cat([case.hidden[: p["start"]], merge.apply(here.hidden), case.hidden[p["start"] + merge.inputs :]])
    torch.testing.assert_close(out, case.out, atol=TOLERANCE, rtol=0)
    assert here.memory["merged"] == pytest.approx([*case.sparsity.tolist()])
    done = {(0, 0): "merge", (1, 0): "prune", (1, 1): "done"}
    assert here.memory["phase"] == done[tuple(case.finished.tolist())]


@each(of_kind("framefusion", "prune"))
def test_framefusion_prunes(case: Case) -> None:
    p = case.params
    visual = p["visual0"] - (p["length0"] - p["length"])
    attention = case.attention.mean(0)[p["start"] : p["start"] + visual]
    here = span(torch.zeros(visual, 1), attention, memory={"merged": list(p["sparsity"]), "phase": "prune"})
    merge = FrameFusion(p["cost"], first=0, depth=28).merge_span(here)
    assert kept_sequence(merge, p["start"], p["length"]) == case.keep.tolist()
