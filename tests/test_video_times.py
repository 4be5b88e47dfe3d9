"""Each family's own processor gets the times of the frames, whatever the rate at which they come."""

import re
from pathlib import Path

import numpy as np
import pytest
from family_processors import processor
from media import write_video

from holitom.video import Clip, model_turn, read_video, user_turn
from holitom.video.processor import ProcessorPreprocessor, metadata_of

DATA = Path(__file__).parent / "data" / "video"
OMNI = ("qwen2_5_omni", "qwen3_omni_moe")
SINGLE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "lfm3_vl", "glm4v", "glm46v", "video_llama_3", "gemma4", *OMNI)
SHRUNK = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "lfm3_vl", "glm4v", "glm46v", "video_llama_3")
STACKED = ("internvl", "llava_next_video", "smolvlm", "video_llava")
# What the prompt says of frames at 0, .25, .5, .75, 1 and 11 seconds, and of frames at 0, 10, 10.1, ... 10.4
STAMPS = {
    "qwen3_vl": (r"<([\d.]+) seconds>", "0.1 0.6 6.0", "5.0 10.1 10.4"),  # the middle of two frames
    "lfm3_vl": (r"<([\d.]+) seconds>", "0.1 0.6 6.0", "5.0 10.1 10.4"),
    "glm4v": (r"(\d\d?)(?=<\||What)", "0 0 1", "0 10 10"),  # whole seconds of the first of two frames
    "glm46v": (r"([\d.]+) seconds", "0.0 0.5 1.0", "0.0 10.1 10.3"),  # the first of two frames
    "video_llama_3": (r"Time ([\d.]+)s:", "0.0 0.2 0.5 0.8 1.0 11.0", "0.0 10.0 10.1 10.2 10.3 10.4"),
    "gemma4": (r"\d\d:\d\d", "00:00 00:00 00:00 00:00 00:01 00:11", "00:00 00:10 00:10 00:10 00:10 00:10"),
    "smolvlm": (r"from (\d\d:\d\d):", "00:00 00:00 00:00 00:00 00:01 00:11", "00:00 00:10 00:10 00:10 00:10 00:10"),
}


@pytest.fixture(scope="module")
def preprocessor_of(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = ProcessorPreprocessor(processor(name, tmp_path_factory.mktemp(name)), name)
        return made[name]

    return get


def clip(frames, seed=0, step=30):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 40, 60, 3), dtype=np.uint8)
    indexes = np.arange(frames) * step
    return Clip(pixels, indexes, indexes / 30, 30.0, frames * step, frames * step / 30, "film.mp4")


def text_of(preprocessor, inputs, row=0):
    return preprocessor.tokenizer.decode(inputs["input_ids"][row])


@pytest.mark.parametrize("name", STAMPS)
@pytest.mark.parametrize("source", ["vfrT.webm", "slow.gif"])
def test_the_frames_own_times_are_in_the_prompt(name, source, preprocessor_of):
    preprocessor = preprocessor_of(name)
    text = text_of(preprocessor, preprocessor("What?", read_video(DATA / source, 6)))
    pattern, uneven, slow = STAMPS[name]
    assert re.findall(pattern, text) == (uneven if source == "vfrT.webm" else slow).split()


@pytest.mark.parametrize("name", ["qwen2_5_vl", *OMNI])
def test_some_get_the_mean_seconds_between_pairs_of_frames(name, preprocessor_of):
    film, other = read_video(DATA / "vfrT.webm", 6), clip(4)
    inputs = preprocessor_of(name)("What?", film, other)
    seconds = inputs["video_second_per_grid" if name in OMNI else "second_per_grid_ts"]
    assert seconds.tolist() == pytest.approx([2 * film.duration / 6, 2.0])
    assert seconds[0].item() == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.webm", "film.avi"])
@pytest.mark.parametrize("rate", [12, 24, 30, 60])
def test_whole_seconds_are_not_missed_by_a_hair(name, rate, tmp_path):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name[-4:].strip("."), "libx264")
    film = read_video(write_video(tmp_path / name, 97, codec, rate=rate), 97)
    metadata = metadata_of(film)
    seconds = [int(place / metadata["fps"]) for place in metadata["frames_indices"]]  # as Gemma 4, GLM and SmolVLM do
    assert seconds == [number // rate for number in range(97)]


def test_frames_at_a_regular_rate_are_handed_over_as_they_were_counted():
    metadata = metadata_of(clip(4))
    assert (metadata["frames_indices"], metadata["fps"], metadata["total_num_frames"]) == ([0, 30, 60, 90], 30.0, 120)


def test_places_over_fps_are_the_times_however_uneven_they_are():
    times = np.sort(np.random.default_rng(0).uniform(0, 5000, 50))
    uneven = Clip(np.zeros((50, 8, 8, 3), np.uint8), np.arange(50) * 3, times, 0.03, 150, 5000.0, "film.mp4")
    metadata = metadata_of(uneven)
    assert np.array(metadata["frames_indices"]) / metadata["fps"] == pytest.approx(times, abs=1e-6)
    assert metadata["total_num_frames"] / metadata["fps"] == pytest.approx(5000.0)


@pytest.mark.parametrize("name", SINGLE + STACKED)
def test_a_video_of_one_frame(name, preprocessor_of):
    preprocessor = preprocessor_of(name)
    inputs = preprocessor("What?", clip(1))
    assert "What?" in text_of(preprocessor, inputs)
    if "video_grid_thw" in inputs:
        assert inputs["video_grid_thw"][0, 0] == 1


@pytest.mark.parametrize("name", ["qwen3_vl", "lfm3_vl", "glm4v", "glm46v"])
def test_one_frame_is_the_same_as_that_frame_twice(name, preprocessor_of):
    preprocessor = preprocessor_of(name)
    one = clip(1)
    twice = Clip(one.frames.repeat(2, 0), np.array([0, 1]), np.zeros(2), 30.0, 30, 1.0, "film.mp4")
    ours, theirs = preprocessor("What?", one), preprocessor("What?", twice)
    assert np.array_equal(ours["pixel_values_videos"], theirs["pixel_values_videos"])
    assert np.array_equal(ours["input_ids"], theirs["input_ids"])


@pytest.mark.parametrize("name", SINGLE)
def test_videos_of_unequal_length_go_together(name, preprocessor_of):
    preprocessor = preprocessor_of(name)
    conversations = [[user_turn("What?", clip(5, 1))], [user_turn("And then?", clip(2, 2))]]
    together = preprocessor.batch(conversations)
    for row, conversation in enumerate(conversations):
        alone = preprocessor.batch([conversation])["input_ids"][0]
        assert together["input_ids"][row, -len(alone) :].tolist() == alone.tolist()


@pytest.mark.parametrize("name", STACKED)
def test_videos_of_unequal_length_are_refused_where_they_lie_in_one_tensor(name, preprocessor_of):
    with pytest.raises(ValueError, match=rf"same number of frames for {name}, got \[2, 5\]: read them with frames=2"):
        preprocessor_of(name).batch([[user_turn("What?", clip(5))], [user_turn("And then?", clip(2))]])


@pytest.mark.parametrize("name", SINGLE + STACKED)
def test_an_answer_that_is_begun_goes_on(name, preprocessor_of):
    preprocessor = preprocessor_of(name)
    before = [user_turn("What?", clip(2)), model_turn("A cat."), user_turn("Where?")]
    asked = text_of(preprocessor, preprocessor.batch([before]))
    begun = text_of(preprocessor, preprocessor.batch([[*before, model_turn("On the")]]))
    assert begun.endswith("On the")
    assert begun.count("A cat.") == 1
    assert begun.startswith(asked.rstrip())  # and so no second header of an answer


@pytest.mark.parametrize("name", SINGLE + STACKED)
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 200, 300), (3, 200, 310), (4, 123, 457), (16, 240, 320)])
def test_frames_made_small_while_they_are_read_give_the_same_inputs(name, frames, height, width, preprocessor_of):
    preprocessor = preprocessor_of(name)
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    whole, small = read_video(pixels, 16), read_video(pixels, 16, size=preprocessor.shrink)
    if name in SHRUNK:
        assert small.frames.nbytes < whole.frames.nbytes
    theirs, ours = preprocessor("What?", whole), preprocessor("What?", small)
    for key, value in theirs.items():
        assert np.array_equal(np.asarray(ours[key]), np.asarray(value)), key
