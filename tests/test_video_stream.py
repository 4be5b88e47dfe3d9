"""A video that arrives a few frames at a time: the same frames as all at once, in the memory of a few."""

import contextlib
import logging
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import number_of, write_video
from PIL import Image
from test_video_decode import CONTAINERS

from holitom.video import Clip, VideoError, VideoStream, open_video, read_video, sample_by_rate


def drained(stream, frames=5):
    """All chunks of a stream put together."""
    clips = list(stream.chunks(frames))
    assert all(len(clip) == frames for clip in clips[:-1])
    assert 1 <= len(clips[-1]) <= frames
    return np.concatenate([clip.frames for clip in clips]), np.concatenate([clip.indexes for clip in clips])


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("frames", [1, 7, 97])
def test_a_stream_gives_the_frames_of_read_video(name, frames, tmp_path):
    codec, options = CONTAINERS[name]
    path = write_video(tmp_path / name, 97, codec, options=options)
    clip, stream = read_video(path, frames), open_video(path, frames=frames)
    assert (len(stream), stream.total_frames) == (len(clip), clip.total_frames)
    assert (stream.fps, stream.duration, stream.source) == (clip.fps, clip.duration, clip.source)
    got, indexes = drained(stream)
    assert indexes.tolist() == clip.indexes.tolist() == stream.indexes.tolist()
    assert np.array_equal(got, clip.frames)
    assert np.allclose(stream.times, clip.times, atol=2e-3)
    assert stream.warning is None


def test_frames_per_second_of_a_steady_film(tmp_path):
    path = write_video(tmp_path / "film.mp4", 100, rate=25)
    assert open_video(path, fps=1).indexes.tolist() == [0, 25, 50, 75]
    assert open_video(path, fps=2.5).indexes.tolist() == list(range(0, 100, 10))
    assert open_video(path, fps=25).indexes.tolist() == list(range(100))
    assert open_video(path, fps=100).indexes.tolist() == list(range(100))  # each frame once
    assert open_video(path, fps=0.001).indexes.tolist() == [0]
    assert open_video(path, fps=1).rate == pytest.approx(1)


def test_a_film_with_a_variable_frame_rate_is_sampled_by_its_clock(tmp_path):
    """Thirty frames in the first second, one that stands for three seconds, thirty in the last."""
    pts = [round(number * 1000 / 30) for number in range(30)] + [1000]
    pts += [4000 + round(number * 1000 / 30) for number in range(30)]
    path = write_video(tmp_path / "film.mkv", len(pts), pts=pts)
    stream = open_video(path, fps=1)
    frames, indexes = drained(stream, 2)
    assert indexes.tolist() == [0, 30, 31]
    assert [number_of(frame) for frame in frames] == [0, 30, 31]
    assert np.allclose(stream.times, [0.0, 1.0, 4.0], atol=2e-3)
    assert open_video(path, fps=4).indexes.tolist() == [0, 7, 15, 22, 30, 31, 38, 46, 53]


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=60), st.floats(0.1, 50))
def test_sampling_by_rate_takes_what_is_on_display(lengths, fps):
    begins = np.concatenate([[0.0], np.cumsum(lengths)])
    duration = begins[-1]
    begins = begins[:-1]
    indexes = sample_by_rate(begins, duration, fps)
    assert indexes[0] == 0
    assert (np.diff(indexes) > 0).all()
    moments = np.arange(int(np.floor(duration * fps)) + 1) / fps
    shown = {max(np.flatnonzero(begins <= moment)) for moment in moments if moment < duration}
    near = {index for index, begin in enumerate(begins) if (np.abs(moments - begin) < 1e-5).any()}
    beside = near | {index - 1 for index in near}
    assert set(indexes.tolist()) - beside == shown - beside


def test_folders_animations_and_clips_stream_alike(tmp_path):
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(7)]
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    animation = tmp_path / "film.webp"
    pictures[0].save(animation, save_all=True, append_images=pictures[1:], duration=500, lossless=True)
    for source in (folder, animation):
        clip = read_video(source, 4)
        frames, indexes = drained(open_video(source, frames=4), 3)
        assert np.array_equal(frames, clip.frames)
        assert indexes.tolist() == clip.indexes.tolist()
    assert open_video(folder, fps=0.5).indexes.tolist() == [0, 2, 4, 6]
    assert open_video(animation, fps=1).indexes.tolist() == [0, 2, 4, 6]
    clip = Clip.from_frames(np.stack([np.asarray(picture) for picture in pictures]))
    frames, indexes = drained(VideoStream.of(clip), 3)
    assert np.array_equal(frames, clip.frames)
    assert indexes.tolist() == clip.indexes.tolist()


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_gradual_refresh_is_decoded_from_the_start(name, tmp_path):
    path = write_video(tmp_path / name, 97, options={"x264-params": "intra-refresh=1:bframes=0:keyint=12"})
    clip = read_video(path, 5)
    frames, indexes = drained(open_video(path, frames=5), 2)
    assert indexes.tolist() == clip.indexes.tolist()
    assert np.array_equal(frames, clip.frames)


def test_a_cut_off_film_gives_what_is_there_and_says_so(tmp_path, caplog):
    path = write_video(tmp_path / "film.mkv", 90)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    stream = open_video(path, fps=10)
    with caplog.at_level(logging.WARNING, logger="holitom"):
        frames, indexes = drained(stream)
    assert 5 < len(frames) < 25
    assert [number_of(frame) for frame in frames] == indexes.tolist()
    assert "cut off: its header announces" in stream.warning
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]


def test_a_tail_of_noise_costs_its_frames_and_no_others(tmp_path):
    path = write_video(tmp_path / "film.mp4", 90, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = len(data) * 2 // 3
    data[start:] = np.random.default_rng(0).bytes(len(data) - start)
    path.write_bytes(data)
    stream = open_video(path, frames=30)
    frames, indexes = drained(stream)
    assert 15 <= len(frames) <= 30
    sound = [(number_of(frame), index) for frame, index in zip(frames, indexes, strict=True) if index < 48]
    assert [number for number, _ in sound] == [index for _, index in sound]
    assert "damaged" in stream.warning


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "mpeg1video"), ("a.avi", "mpeg4")]
)
def test_any_damage_gives_frames_or_a_video_error(name, codec, seed, tmp_path):
    path = write_video(tmp_path / name, 40, codec)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed)
    for place in noise.integers(0, len(data), 10 ** (1 + seed % 3)):
        data[place] = noise.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(VideoError):
        frames, indexes = drained(open_video(path, frames=6), 2)
        assert len(frames) == len(indexes) <= 6
        assert (np.diff(indexes) > 0).all()


def test_memory_is_that_of_a_chunk(tmp_path):
    script = textwrap.dedent(
        """
        import resource, sys
        from holitom.video import open_video
        count = sum(len(clip) for clip in open_video(sys.argv[1], fps=30).chunks(8))
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        """
    )
    peaks = []
    for frames in (60, 900):
        path = write_video(tmp_path / f"{frames}.ts", frames, "mpeg1video", height=240, width=320)
        result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        count, peak = result.stdout.split()
        assert int(count) == frames
        peaks.append(float(peak))
    assert peaks[1] - peaks[0] < 30  # MiB; the 840 frames more are 185 MiB as RGB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either fps or frames"),
        ({"fps": 1.0, "frames": 2}, "give either fps or frames"),
        ({"fps": 0.0}, r"fps must be above 0, got 0\.0"),
        ({"fps": float("nan")}, "fps must be above 0, got nan"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
    ],
)
def test_wrong_parameters_are_named(arguments, message, tmp_path):
    path = write_video(tmp_path / "film.mp4", 3)
    with pytest.raises(ValueError, match=message):
        open_video(path, **arguments)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        list(open_video(path, frames=1).chunks(0))
    with pytest.raises(VideoError, match="no such file"):
        open_video(tmp_path / "none.mp4", fps=1)
