"""Files whose headers say something else than their frames, each for a kind: every frame in its order and at its time.

The files in data/video are numbered frames, 96 x 64, encoded by ffmpeg and x264 and then cut, joined or patched.
"""

from pathlib import Path

import numpy as np
import pytest
from media import number_of

from holitom.video import open_video, read_video

FILES = Path(__file__).parent / "data" / "video"
CASES = {  # numbers of the frames, their distance in seconds (one, or one each), the whole length
    "full.mp4": (range(100), 0.04, 4.0),
    "h264b.avi": (range(90), 0.04, 3.6),  # B-frames in a container that stores no display times
    "packed.avi": (range(60), 0.04, 2.4),  # two pictures in one packet, an empty one behind
    "rawcopy.mp4": (range(2, 120), 0.04, 4.72),  # a raw stream put into mp4, with decoding times for display times
    "cat2.ts": ([*range(30), *range(100, 130)], [0.04] * 30 + [0.1001 / 3] * 29, 1.2 + 1.001),  # the clock starts anew
    # Its header counts empty chunks; its encoder repeated pictures in place of four
    "xvid.avi": ([{19: 18, 79: 78, 99: 98, 117: 118}.get(n, n) for n in range(118)], 0.04, 4.72),
    "off10.mkv": (range(100), 0.04, 4.0),  # begins at 10 s; the tag DURATION holds the time of its end
    "vfrT.webm": (range(30), [0.05] * 20 + [2.0] * 9, 19.033),
    "endcut.mp4": (range(50), 0.04, 2.0),  # an edit list cuts the end
    "mid.ts": (range(50, 100), 0.04, 2.0),  # begins in the middle of a group of pictures
    "camera_stream": (range(120), 0.04, 4.8),  # JPEGs one after the other, in a file without a suffix
}


def number(frame):
    """These frames carry 12 bits, in blocks like those of ``numbered``."""
    wide = np.concatenate([frame[:, :48], np.zeros_like(frame[:, :16]), frame[:, 48:]], axis=1)
    low, high = number_of(wide) & 63, number_of(wide) >> 8 & 63
    return low | high << 6


@pytest.mark.parametrize("name", CASES)
def test_every_frame_comes_in_its_order_and_at_its_time(name):
    numbers, gaps, duration = CASES[name]
    clip = read_video(FILES / name, 1000)
    assert [number(frame) for frame in clip.frames] == list(numbers)
    assert clip.warning is None
    assert clip.total_frames == len(numbers)
    expected = np.concatenate([[0.0], np.cumsum(np.broadcast_to(gaps, len(numbers) - 1))])
    assert clip.times == pytest.approx(expected, abs=2e-3)
    assert clip.duration == pytest.approx(duration, abs=2e-3)
    assert clip.fps == len(clip) / clip.duration


@pytest.mark.parametrize("frames", [1, 6, 16, 30])
@pytest.mark.parametrize("name", CASES)
def test_a_sample_is_taken_from_them_all(name, frames):
    whole, clip = read_video(FILES / name, 1000), read_video(FILES / name, frames)
    assert clip.indexes.tolist() == [i * len(whole) // frames for i in range(frames)]
    assert np.array_equal(clip.frames, whole.frames[clip.indexes])
    assert clip.times.tolist() == whole.times[clip.indexes].tolist()


@pytest.mark.parametrize("fps", [2, 5, 25, 1e9])
@pytest.mark.parametrize("name", CASES)
def test_sampling_by_rate_takes_what_is_on_display_and_never_a_frame_past_the_end(name, fps):
    whole, stream, clip = (
        read_video(FILES / name, 1000),
        open_video(FILES / name, fps=fps),
        read_video(FILES / name, fps=fps),
    )
    ends = np.append(whole.times[1:], whole.duration)
    taken = [
        index
        for index, (begin, end) in enumerate(zip(whole.times, ends, strict=True))
        if np.ceil((begin - 1e-5) * fps) / fps < end - 1e-5
    ]
    assert stream.indexes.tolist() == clip.indexes.tolist() == taken
    frames = np.concatenate([part.frames for part in stream.chunks(7)])
    assert np.array_equal(frames, whole.frames[taken])
    assert np.array_equal(clip.frames, frames)
    assert stream.times.tolist() == clip.times.tolist()
    assert (stream.duration, stream.fps, stream.total_frames) == (whole.duration, whole.fps, len(whole))
    assert stream.warning is None
