"""Unified-ST and what it is made of: the pool of unlike tokens, clusters in blocks, and text inside the LLM."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from families import IMAGE, PAD, VIDEO, batch, build, row
from golden import span
from hypothesis import given, settings
from hypothesis import strategies as st
from method_zoo import make_video

from holitom import UnifiedST
from holitom.ops import density
from holitom.ops.density import DensityPeaks, cluster_blockwise
from holitom.ops.diversity import distinct_rows
from holitom.runtime.prefix import hold, resume


def one_by_one(rows, order, count, similarity):
    unit, found = F.normalize(rows.double(), dim=1), []
    for index in order.tolist():
        if len(found) < count and all(float(unit[index] @ unit[other]) < similarity for other in found):
            found.append(index)
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1000), st.sampled_from([0.05, 0.5, 2.0]), st.integers(1, 80), st.sampled_from([-0.2, 0.3, 0.7, 0.95])
)
def test_the_pool_is_that_of_going_row_by_row(seed, noise, count, similarity):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, 8, generator=random).repeat(200, 1) + noise * torch.randn(1200, 8, generator=random)
    order = torch.randperm(1200, generator=random)
    assert distinct_rows(rows, order, count, similarity).tolist() == one_by_one(rows, order, count, similarity)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("centres", [1, 7, 60, 300])
def test_clusters_in_blocks_are_those_of_the_whole_matrix(monkeypatch, held, centres):
    monkeypatch.setattr(density, "_HELD", 1 << 26 if held else 0)
    monkeypatch.setattr(density, "row_chunk", lambda *_: 37)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(12, 16, generator=random).repeat(25, 1) + 0.3 * torch.randn(300, 16, generator=random)
    want, got = DensityPeaks.of(x, centres, 7), cluster_blockwise(x, centres, 7)
    assert got.centres.tolist() == want.centres.tolist()
    assert got.cluster.tolist() == want.cluster.tolist()


def test_the_best_attended_stay_and_copies_of_them_do_not():
    video = make_video(4, (4, 4), 32, 0, 1.0)
    video.features[1] = video.features[0]
    video.scores[:] = torch.rand(4, 16) * 0.5
    video.scores[0, 3], video.scores[1, 3], video.scores[2, 9] = 1.0, 0.9, 0.8
    merge = UnifiedST(retention=8 / 64, tau=0.99).merge_video(video)
    output = merge.apply(video.features.flatten(0, 1))
    for place in (3, 2 * 16 + 9):
        assert torch.equal(output[merge.anchor.tolist().index(place)], video.features.flatten(0, 1)[place])
    pool = [index for index in merge.anchor.tolist() if (merge.target == merge.target[index]).sum() == 1]
    assert 16 + 3 not in pool


def test_nothing_is_dropped_and_clusters_are_plain_means():
    video = make_video(5, (4, 4), 32, 1, 0.3)
    merge = UnifiedST(retention=0.25).merge_video(video)
    assert (merge.target >= 0).all()
    out = merge.apply(video.features.flatten(0, 1))
    for number in range(merge.outputs):
        mine = video.features.flatten(0, 1)[merge.target == number]
        torch.testing.assert_close(out[number], mine.mean(0), atol=1e-5, rtol=1e-5)
    assert merge.anchor.tolist() == sorted(merge.anchor.tolist())


def test_inside_the_llm_the_text_decides():
    hidden, text = torch.eye(8), torch.eye(8)[[6]]
    attention = torch.tensor([0.0, 0.9, 0.8, 0.0, 0.0, 0.0, 0.1, 0.0])
    kept = {share: UnifiedST(inner_retention=0.25, text_similarity=share) for share in (0.0, 0.5, 1.0)}
    kept = {
        share: method.merge_span(span(hidden, attention, text=text)).anchor.tolist() for share, method in kept.items()
    }
    assert kept == {0.0: [1, 2], 0.5: [1, 6], 1.0: [0, 6]}
    with pytest.raises(TypeError, match=r"SpanStates\.text is None"):
        UnifiedST().merge_span(span(hidden, attention))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_the_text_is_what_stands_behind_the_video(name):
    """In a padded batch and behind a prefix it is the states of the same tokens as alone."""
    model, seen = build(name), []

    class Noting(UnifiedST):
        def merge_span(self, span):
            seen.append(span.text)
            return super().merge_span(span)

    rows = [
        row(name, ("words", 3), ("video", 6), ("words", 5, 1)),
        row(name, ("words", 9), ("video", 6, 2), ("words", 8, 2)),
    ]
    with Noting(retention=0.5, layer=3)(model) as session:
        model(**batch(name, *rows))
        together = seen[:]
        seen.clear()
        for one in rows:
            model(**batch(name, one))
        for a, b in zip(together, seen, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        behind = [
            len(one.ids) - 1 - max(at for at, token in enumerate(one.ids) if token in (VIDEO, IMAGE)) for one in rows
        ]
        assert [len(text) for text in seen] == behind
        alone = seen[0]
        seen.clear()
        cut = len(rows[0].ids) - 4
        inputs = batch(name, rows[0])
        wide = {key: value[:, :cut] for key, value in inputs.items() if value.shape[:2] == (1, len(rows[0].ids))}
        made = resume(session, [hold(session, {**inputs, **wide})], [rows[0].ids[cut:]], PAD)
        model.generate(**made, max_new_tokens=1, do_sample=False)
        torch.testing.assert_close(seen[0], alone, atol=1e-4, rtol=1e-4)
