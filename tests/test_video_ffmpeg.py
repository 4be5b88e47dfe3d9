"""Films of all kinds give the frames that the ``ffmpeg`` command gives, in its order, at times that ascend."""

import numpy as np
import pytest
from ffmpeg_films import decoded, make, needs_ffmpeg, raw, recipes
from media import number_of

from holitom.video import open_video, read_video

RECIPES = recipes()
# One of each kind; the others are slow together.
SOON = ["h264-b3.avi", "h264-b3.mxf", "h264-b3.asf", "hevc-b3.mkv", "mpeg4-b2.avi", "altref.webm", "opengop.ts"]
SOON += ["joined.ts", "joined.webm", "ahead.ts", "begin-b3.mp4", "end-b3.mp4", "raw-h264.mp4", "torn-open.ts"]
SOON += ["torn.mpg", "uneven.mkv", "pause.mp4"]


@needs_ffmpeg
@pytest.mark.parametrize(
    "name", [name if name in SOON else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_frames_are_those_of_the_ffmpeg_command(name, tmp_path):
    path = make(name, RECIPES[name], raw(tmp_path), tmp_path)
    expected = decoded(path)
    numbers = [number_of(frame) for frame in expected]
    assert len(numbers) >= 20
    clip = read_video(path, 1000)
    assert [number_of(frame) for frame in clip.frames] == numbers
    assert np.abs(clip.frames.astype(int) - expected).mean() < 1
    assert clip.warning is None
    assert (np.diff(clip.times) > 0).all()
    assert 0.001 < clip.duration - clip.times[-1] < 0.11
    assert clip.fps == len(clip) / clip.duration

    if name.startswith("pause"):
        assert np.diff(clip.times).max() == pytest.approx(8.0, abs=0.1)
    sample = read_video(path, 7)
    assert sample.indexes.tolist() == [i * len(numbers) // 7 for i in range(7)]
    assert np.array_equal(sample.frames, clip.frames[sample.indexes])
    stream = open_video(path, fps=5)
    frames = np.concatenate([part.frames for part in stream.chunks(5)])
    assert np.array_equal(frames, clip.frames[stream.indexes])
    assert (stream.total_frames, stream.duration, stream.warning) == (len(clip), clip.duration, None)


def test_there_are_enough_kinds():
    assert len(RECIPES) >= 120
    assert set(RECIPES) >= set(SOON)
