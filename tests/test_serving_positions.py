"""The arithmetic of compressed videos' positions and of heads split over ranks, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from holitom.integrations.vllm.positions import (
    CHANNELS,
    Media,
    delta,
    from_channels,
    grid_places,
    place_videos,
    prompt_positions,
    to_channels,
)
from holitom.integrations.vllm.tap import PatchTap, patch_record

BOTH = frozenset({"scores", "keys"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_places_survive_every_dtype(dtype: torch.dtype):
    places = torch.tensor([[0, 255, 256, 257, 65_535, 1_000_000], [1, 2, 3, 300, 5, 16_777_215], [0, 0, 511, 1, 2, 3]])
    rows = to_channels(places, dtype)
    assert rows.shape == (6, CHANNELS)
    assert rows.dtype == dtype
    assert torch.equal(from_channels(rows), places)


def test_a_single_channel_would_not_do():
    """What the digits are for: bfloat16 itself rounds 257."""
    assert torch.tensor([257]).to(torch.bfloat16).long().item() != 257


def test_grids():
    places = grid_places(np.array([0, 3]), (2, 3))
    assert places.tolist() == [
        [0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3],
        [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1],
        [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    ]


IMAGE, VIDEO = grid_places(np.arange(1), (2, 2)), grid_places(np.arange(4), (2, 2))
MEDIA = [Media(3, 5, VIDEO, known=False), Media(9, 4, IMAGE, known=True), Media(13, 3, VIDEO, known=False)]
WAITING = torch.zeros(20, dtype=torch.bool)
WAITING[3:8] = WAITING[13:16] = True
KEPT = [torch.from_numpy(VIDEO[:, [0, 5, 6, 9, 15]]), torch.from_numpy(VIDEO[:, [2, 3, 8]])]


def test_text_goes_on_behind_whole_videos():
    positions, after = prompt_positions(20, MEDIA)
    assert positions[0, :3].tolist() == [0, 1, 2]
    assert positions[:, 8].tolist() == [7, 7, 7]  # 3 + the four steps of the whole video
    assert positions[:, 9:13].tolist() == (IMAGE + 8).tolist()
    assert positions[:, 16:].tolist() == [[14, 15, 16, 17]] * 3
    assert 20 + after == 18 == 20 + delta(positions)
    assert (positions[:, WAITING] < 0).all()


def settled() -> torch.Tensor:
    positions, _ = prompt_positions(20, MEDIA)
    positions[:, 3:8], positions[:, 13:16] = 3 + KEPT[0], 10 + KEPT[1]
    return positions


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 20])
def test_chunks_of_any_size_place_the_same(chunk: int):
    positions, _ = prompt_positions(20, MEDIA)
    rows = torch.cat(KEPT, 1)
    for computed in range(0, 20, chunk):
        mine = WAITING.clone()
        mine[:computed] = mine[computed + chunk :] = False
        if mine.any():
            first = int(WAITING[:computed].sum())
            positions = place_videos(positions, WAITING, rows[:, first : first + int(mine.sum())], computed)
    assert torch.equal(positions, settled())


def test_a_request_that_starts_again_keeps_its_positions():
    positions, _ = prompt_positions(20, MEDIA)
    rows = torch.cat(KEPT, 1)
    positions = place_videos(positions, WAITING, rows[:, :4], 0)  # preempted in the middle of the first video
    assert torch.equal(place_videos(positions, WAITING, rows, 0), settled())
    assert torch.equal(place_videos(settled(), WAITING, rows, 0), settled())


def test_a_hit_in_the_prefix_cache_leaves_what_it_skips():
    positions, _ = prompt_positions(20, MEDIA)
    positions = place_videos(positions, WAITING, torch.cat(KEPT, 1)[:, 2:], 5)
    assert torch.equal(positions[:, 5:], settled()[:, 5:])
    assert (positions[:, 3:5] < 0).all()  # never run, never read
    assert delta(positions) == delta(settled())


def test_what_follows_a_prompt_that_ends_in_a_video_waits_for_it():
    positions, _ = prompt_positions(8, [MEDIA[0]])
    assert delta(positions) == 0
    placed = place_videos(positions, WAITING[:8], KEPT[0], 0)
    assert 8 + delta(placed) == 3 + 3 + 1  # the last kept token is the last of the video


# heads split over ranks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 4])
def test_scores_and_keys_do_not_depend_on_how_heads_are_split(ranks: int):
    torch.manual_seed(0)
    query, key = torch.randn(3, 8, 25, 6), torch.randn(3, 8, 25, 6)
    want = patch_record(query, key, 0.4, BOTH, 1, lambda _: pytest.fail("one rank has nobody to ask"))
    parts = list(zip(query.chunk(ranks, 1), key.chunk(ranks, 1), strict=True))
    alone = [patch_record(*part, 0.4, BOTH, 1, lambda mean: mean) for part in parts]
    sums = {record.received.shape: sum(each.received for each in alone) for record in alone}
    sums |= {record.keys.shape: sum(each.keys for each in alone) for record in alone}
    for part in parts:  # every rank comes to the same
        got = patch_record(*part, 0.4, BOTH, ranks, lambda mean: sums[mean.shape])
        torch.testing.assert_close(got.received, want.received, atol=1e-6, rtol=0)
        torch.testing.assert_close(got.keys, want.keys, atol=1e-6, rtol=0)
    assert not torch.allclose(alone[0].received, want.received, atol=1e-6)  # a rank alone is wrong


class Attention(nn.Module):
    num_heads, scale = 2, 0.5

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value


@pytest.mark.parametrize("named", [False, True])
def test_the_tap_sees_packed_and_unpacked_patches_alike(named: bool):
    torch.manual_seed(0)
    query, key = torch.randn(5, 9, 12), torch.randn(5, 9, 12)  # 5 frames of 9 patches, 2 heads of 6
    attention = Attention()
    tap = PatchTap(attention, BOTH, 1, lambda mean: mean)
    with tap.watching():
        attention(query=query, key=key, value=key) if named else attention(query, key, key)
    one = tap.record(5, 9)
    with tap.watching():
        attention(query.reshape(1, 45, 2, 6), key.reshape(1, 45, 2, 6), key)
    other = tap.record(5, 9)
    assert one.received.shape == (5, 9)
    assert one.keys.shape == (5, 9, 6)
    assert torch.equal(one.received, other.received)
    assert torch.equal(one.keys, other.keys)
    torch.testing.assert_close(one.received.sum(1), torch.ones(5))


def test_the_tap_looks_at_videos_only():
    attention = Attention()
    tap = PatchTap(attention, frozenset({"scores"}), 1, lambda mean: mean)
    attention(torch.randn(1, 9, 12), torch.randn(1, 9, 12), torch.randn(1, 9, 12))  # an image
    with tap.watching():
        attention(torch.randn(2, 9, 12), torch.randn(2, 9, 12), torch.randn(2, 9, 12))
    record = tap.record(2, 9)
    assert record.received.shape == (2, 9)
    assert record.keys is None


def test_a_method_without_needs_costs_nothing():
    attention = Attention()
    tap = PatchTap(attention, frozenset(), 1, lambda mean: mean)
    assert not attention._forward_pre_hooks
    with tap.watching():
        attention(torch.randn(2, 9, 12), torch.randn(2, 9, 12), torch.randn(2, 9, 12))
    assert tap.record(2, 9).received is None


def test_settings_are_read_from_the_hugging_face_config():
    from holitom.integrations.vllm import ServingConfig

    settings = {"method": "evs", "retention": 0.5}
    assert ServingConfig.of_hf_config(SimpleNamespace(holitom=settings)) == ServingConfig.parse(settings)
    with pytest.raises(ValueError, match="beside it in hf_overrides"):
        ServingConfig.of_hf_config(SimpleNamespace())
