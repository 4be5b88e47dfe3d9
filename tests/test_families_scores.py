"""Patch scores of every family equal what eager attention weights give, patch by patch."""

from __future__ import annotations

import sys

import pytest
import torch
from families import FAMILIES, batch, model_of, row

from holitom import HoliTom
from holitom.methods.visionzip import VisionZip

CLASS_TOKEN = ("llava_next_video", "video_llava", "internvl")


def places(name, inputs):
    """(F, P, 2) or (P, 2): row and column of each patch in the order in which the tower works, -1 for padding."""
    from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

    if name in ("llava_onevision", "llava_next_video", "video_llava", "internvl", "smolvlm"):
        side = {"llava_onevision": 7, "internvl": 8, "smolvlm": 8}.get(name, 6)
        return torch.tensor([[y, x] for y in range(side) for x in range(side)])
    if name == "gemma4":
        return inputs["video_position_ids"].flip(-1)
    grid = inputs["video_grid_thw"]
    place = get_vision_position_ids(grid, 2)
    if name in ("qwen2_5_vl", "qwen2_5_omni"):
        order, _ = get_vision_window_index(grid, 2, *((16, 4) if name == "qwen2_5_vl" else (112, 28)))
        place = place.view(-1, 4, 2)[order].flatten(0, 1)
    return place.view(int(grid[0, 0]), -1, 2)


def by_hand(name, inputs, weights):
    """(T, N) from the attention weights (F, H, P, P) of the tower's last used layer."""
    t, h, w = len(weights), *FAMILIES[name].grid
    place = places(name, inputs).expand(t, -1, -1)
    sums, counts = torch.zeros(t, h, w), torch.zeros(t, h, w)
    side = {"video_llava": 1, "gemma4": 3}.get(name, 2)
    for frame in range(t):
        if name in CLASS_TOKEN:
            received = weights[frame].mean(0)[0, 1:]
        else:
            real = (place[frame] >= 0).all(-1)
            received = weights[frame].mean(0)[real].mean(0)
        for value, (y, x) in zip(received.tolist(), place[frame].tolist(), strict=True):
            if y >= 0:
                sums[frame, y // side, x // side] += value
                counts[frame, y // side, x // side] += 1
    return (sums / counts).flatten(1)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "llava_onevision"])  # bilinear: tested elsewhere
def test_scores_equal_eager_attention(name, monkeypatch):
    model = model_of(name, "eager")
    inputs = batch(name, row(name, ("words", 3), ("video", 6), ("words", 5)))
    encode = {
        key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    with HoliTom(retention=0.3, layer=None)(model) as session:
        tower = session.adapter.vision_attention(encode)
        seen = []
        module = sys.modules[type(tower).__module__]
        eager = module.eager_attention_forward

        def recording(attention, *args, **kwargs):
            out = eager(attention, *args, **kwargs)
            if attention is tower:
                seen.append(out[1])
            return out

        monkeypatch.setattr(module, "eager_attention_forward", recording)
        with torch.no_grad():
            model(**inputs)
        [video] = session.videos
    want = by_hand(name, inputs, torch.cat(seen))
    assert want.std() > 1e-4
    torch.testing.assert_close(video.scores.cpu(), want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_sdpa_gives_the_scores_of_eager_attention(name):
    found = []
    for attention in ("eager", "sdpa"):
        model = model_of(name, attention)
        with HoliTom(retention=0.3, layer=None)(model) as session, torch.no_grad():
            model(**batch(name, row(name, ("video", 6), ("words", 5))))
            found.append(session.videos[0].scores)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_methods_that_compare_keys_get_them(name):
    model = model_of(name)
    with VisionZip(retention=0.3)(model) as session:
        out = model.generate(**batch(name, row(name, ("video", 6), ("words", 5))), max_new_tokens=2)
    [video] = session.videos
    assert 0 < video.merge.outputs < video.merge.inputs
    assert out.shape[1] > 2
