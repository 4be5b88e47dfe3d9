"""What each adapter says about its vision tower: blocks, the patches of each video, their places in the frame."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, batch, model_of, row

from holitom.models import adapter_for
from holitom.models.towers import Tower


def described(name: str, *rows, **asked: object) -> tuple[Tower, dict]:
    adapter = adapter_for(model_of(name))
    inputs = batch(name, *rows)
    prompt = (inputs["input_ids"], inputs["attention_mask"].bool())
    tower = adapter.tower({**inputs, **asked}, prompt)
    assert tower is not None
    return tower, inputs


def two_videos(name: str):
    return row(name, ("words", 3), ("video", 6), ("words", 4), ("video", 6 if FAMILIES[name].even else 4, 2))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sources_of_a_video_are_those_of_its_own_frames(name):
    """One step of each frame's states leads to the next frame, and the videos of a call share none."""
    tower, _ = described(name, two_videos(name))
    assert len(tower.videos) == 2
    seen = torch.cat([video.sources.flatten() for video in tower.videos])
    assert len(seen.unique()) == len(seen)
    for video in tower.videos:
        rows, columns = video.grid
        assert video.sources.shape[1] == video.leading + rows * columns
        if video.order is not None:
            assert video.order.sort().values.tolist() == list(range(video.leading + rows * columns))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_are_those_through_which_the_states_go(name):
    adapter = adapter_for(model_of(name))
    tower, inputs = described(name, two_videos(name))
    ran, shapes = [], []
    number = {id(block): at for at, block in enumerate(tower.blocks)}

    def note(block, args, _output):
        ran.append(number[id(block)])
        shapes.append(args[0].shape)

    handles = [block.register_forward_hook(note) for block in tower.blocks]
    names = [key for key in inputs if key.startswith(("pixel", "video_", "num_frames"))]
    with torch.no_grad():
        getattr(adapter.base, adapter.encoder)(**{key: inputs[key] for key in names}, return_dict=True)
    for handle in handles:
        handle.remove()
    assert ran == list(range(len(tower.blocks)))
    assert set(tower.reads) <= set(ran)
    states = {shape[:-1].numel() for shape in shapes}
    assert states == {max(states)}
    assert max(int(video.sources.max()) for video in tower.videos) < max(states)
    attention = [module for module in tower.attention if module is not None]
    assert adapter.vision_attention(inputs) in attention
    owner = {id(inner): at for at, block in enumerate(tower.blocks) for inner in block.modules()}
    assert [owner[id(module)] for module in attention] == [
        at for at, module in enumerate(tower.attention) if module is not None
    ]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.mrope])
def test_places_are_those_of_the_towers_own_positions(name):
    vision = pytest.importorskip("transformers.vision_utils")
    model = model_of(name)
    tower, inputs = described(name, row(name, ("words", 2), ("video", 4)))
    (video,) = tower.videos
    grid = inputs["video_grid_thw"]
    side = adapter_for(model).merge_size
    positions = vision.get_vision_position_ids(grid, side)
    positions = positions if positions.shape[-1] == 2 else positions.T
    if name in ("qwen2_5_vl", "qwen2_5_omni"):
        visual = model.base_model.visual
        index, _ = vision.get_vision_window_index(grid, side, visual.window_size, visual.patch_size)
        positions = positions.view(-1, side * side, 2)[index].flatten(0, 1)
    places = positions[:, 0] * video.grid[1] + positions[:, 1]
    assert places.view(video.sources.shape).tolist() == [video.order.tolist()] * video.sources.shape[0]


def test_the_last_clip_layer_is_unread():
    for name in ("llava_next_video", "video_llava"):
        tower, _ = described(name, two_videos(name))
        assert tower.reads == (len(tower.blocks) - 2,)
        assert list(tower.unread) == [tower.blocks[-1]]
        asked, _ = described(name, two_videos(name), output_hidden_states=True)
        assert list(asked.unread) == []
    assert not described("llava_onevision", two_videos("llava_onevision"))[0].unread


def test_frames_that_are_images_are_found_by_the_prompt_and_images_stay():
    for name in ("internvl", "smolvlm"):
        one = row(name, ("words", 3), ("image", 1), ("words", 3), ("video", 4), ("words", 2))
        tower, _ = described(name, one)
        tiles = 3 if name == "internvl" else 1
        (video,) = tower.videos
        assert int(video.sources[0, 0]) == tiles * video.sources.shape[1]
        assert len(video.sources) == 4
        assert adapter_for(model_of(name)).tower(batch(name, one), None).videos == []
