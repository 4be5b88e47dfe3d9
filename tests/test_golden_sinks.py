"""SToP's modifier on four methods gives what its official code gives, in that code's units."""

from __future__ import annotations

import pytest
import torch
from golden import TOLERANCE, Case, assert_reproduces, of_kind, video_of
from official import (
    InOfficialUnits,
    OfficialSinksFastVID,
    OfficialSinksFlashVID,
    OfficialSinksHoliTom,
    doubled,
    official_sink_targets,
)

from holitom.ops.ranking import top_indexes
from holitom.ops.selection import join_targets
from holitom.ops.sinks import sink_scores
from holitom.ops.temporal import frame_means


def each(kind: str) -> pytest.MarkDecorator:
    golden = of_kind("stop", kind)
    assert golden
    return pytest.mark.parametrize("case", golden, ids=repr)


def without_newlines(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """The official index and outputs without newlines, which are the model adapter's business; rows in their order."""
    index, out = case.index[case.index >= 0], case.out[case.index >= 0]
    if case.params["newline"] != "grid":
        return index, out
    order = index.argsort()
    return index[order], out[order]


@each("sink")
def test_sink_scores(case: Case) -> None:
    torch.testing.assert_close(sink_scores(case.attention, case.params["gamma"]), case.sink, atol=TOLERANCE, rtol=0)


@each("holitom")
def test_holitom(case: Case) -> None:
    p = case.params
    method = OfficialSinksHoliTom(
        p["r"],
        p["tau"],
        layer=None,
        centre_weight=p["beta"],
        neighbours=p["K"],
        max_frames=p["max_window"],
        mu_s=p["mu_s"],
        mu_t=p["mu_t"],
        gamma=p["gamma"],
        contextual=p["contextual"],
    )
    merge, (index, out) = method.merge_video(video_of(case, scores=case.attention)), without_newlines(case)
    assert [list(span) for span in merge.spans or ()] == case.segments.tolist()
    order = merge.anchor.argsort() if p["newline"] == "grid" else torch.arange(merge.outputs)
    assert merge.anchor[order].tolist() == index.tolist()
    torch.testing.assert_close(merge.apply(case.features.flatten(0, 1))[order], out, atol=TOLERANCE, rtol=0)


@each("visionzip")
def test_visionzip(case: Case) -> None:
    """Frame by frame, because two targets of a frame may be one; the second then stays as it is."""
    p, positions = case.params, case.features.shape[1]
    scores, sinks = InOfficialUnits(mu_s=p["mu_s"], gamma=p["gamma"]).ranked(video_of(case, scores=case.attention))
    index, out = without_newlines(case)
    kept = top_indexes(scores, p["dominant"])
    repeated = False
    for t in range(p["T"]):
        targets = official_sink_targets(kept[t], sinks, positions, p["contextual"])
        once = targets.unique()
        merge = doubled(join_targets(kept[t : t + 1], once[None], case.metric[t : t + 1]))
        want = torch.cat([kept[t], targets])
        rows = torch.cat([merge.apply(case.features[t]), case.features[t, targets]])
        first = torch.tensor([not (targets[:n] == place).any() for n, place in enumerate(targets)])
        contextual = torch.where(
            first, p["dominant"] + torch.searchsorted(once, targets), merge.outputs + torch.arange(len(targets))
        )
        rows = rows[torch.cat([torch.arange(p["dominant"]), contextual])]
        if p["newline"] == "grid":
            order = want.argsort(stable=True)
            want, rows = want[order], rows[order]
        mine = index // positions == t
        assert (index[mine] % positions).tolist() == want.tolist()
        torch.testing.assert_close(out[mine], rows, atol=TOLERANCE, rtol=0)
        repeated |= len(once) < len(targets)
    assert repeated == p["repeated_target"]


@each("fastvid")
def test_fastvid(case: Case) -> None:
    p = case.params
    method = OfficialSinksFastVID(
        p["r"], p["c"], p["tau"], p["d"], p["p"], p["alpha"], scenes="embeddings", mu_s=p["mu_s"], gamma=p["gamma"]
    )
    video = video_of(case, scores=case.attention, frame_embeddings=case.frame_features)
    assert [last - first + 1 for first, last in method.cut(video)] == case.sizes.tolist()
    assert_reproduces(method.merge_video(video), case.features, case.index, case.out)


@each("flashvid")
def test_flashvid(case: Case) -> None:
    p = case.params
    method = OfficialSinksFlashVID(mu_s=p["mu_s"], gamma=p["gamma"])
    scores, _ = method.ranked(video_of(case, scores=case.attention))
    agreement = frame_means(case.features).mean(0).expand(p["T"], -1)
    keep = method.select(case.features, scores, agreement, p["selected"])
    assert keep.sort(1).values.tolist() == case.keep.tolist()
