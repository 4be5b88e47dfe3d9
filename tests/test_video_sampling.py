"""Where frames are taken from."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import number_of, samples_by_fractions, write_video
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from holitom.video import FrameRate, read_video, sample_indexes

counts = st.integers(1, 200_000)


@samples_by_fractions
@given(total=counts, frames=st.integers(1, 256))
def test_floor_equals_transformers_wherever_that_is_defined(total, frames):
    ours = sample_indexes(total, frames)
    if frames <= total:
        assert ours.tolist() == default_sample_indices_fn(VideoMetadata(total), num_frames=frames).tolist()
    else:
        assert ours.tolist() == list(range(total))


@given(total=counts, frames=st.integers(1, 256))
def test_floor_takes_the_frame_at_each_even_fraction(total, frames):
    if frames <= total:
        exact = [int(Fraction(total * step, frames)) for step in range(frames)]
        assert sample_indexes(total, frames).tolist() == exact


@given(total=counts, frames=st.integers(1, 256), rule=st.sampled_from(["floor", "endpoints"]))
def test_indexes_ascend_evenly_and_start_at_the_first_frame(total, frames, rule):
    indexes = sample_indexes(total, frames, rule)
    assert indexes.dtype == np.int64
    assert len(indexes) == min(frames, total)
    assert indexes[0] == 0
    assert indexes[-1] < total
    gaps = np.diff(indexes)
    assert (gaps >= 1).all()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    if rule == "endpoints" and len(indexes) > 1:
        assert indexes[-1] == total - 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 8), ValueError, "total must be at least 1, got 0"),
        ((8, 0), ValueError, "frames must be at least 1, got 0"),
        ((8, -2), ValueError, "frames must be at least 1, got -2"),
        ((8, 2.5), TypeError, "frames must be an int, got 2.5"),
        ((8, True), TypeError, "frames must be an int, got True"),
        ((8, 4, "middle"), ValueError, "rule must be one of floor, endpoints, got 'middle'"),
    ],
)
def test_wrong_parameters_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        sample_indexes(*arguments)


class TestFrameRate:
    @given(total=counts, seconds=st.floats(0, 10_000))
    def test_the_count_is_even_and_bounded(self, total, seconds):
        taken = FrameRate().take(total, seconds)
        assert (np.diff(taken) > 0).all()
        assert taken[0] == 0
        assert taken[-1] == total - 1 or len(taken) == 1
        assert len(taken) == (total if total < 2 else min(max(int(seconds * 2), 4), 768, total) // 2 * 2)

    @pytest.mark.parametrize(("total", "fps"), [(100, 25.0), (1800, 30.0), (50, 10.0), (7, 1.0), (100_000, 30.0)])
    def test_as_many_as_transformers_takes_for_qwen(self, total, fps):
        processor = Qwen2VLVideoProcessor()
        theirs = processor.sample_frames(VideoMetadata(total, fps=fps), fps=2)
        assert len(FrameRate().take(total, total / fps)) == len(theirs)

    def test_a_film_by_its_length(self, tmp_path):
        film = write_video(tmp_path / "film.mp4", 90)  # 3 seconds
        clip = read_video(film, FrameRate())
        assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist() == [0, 18, 36, 53, 71, 89]

    @pytest.mark.parametrize("bad", [{"fps": 0}, {"fps": float("nan")}, {"least": 1}, {"most": 3}, {"multiple": 0}])
    def test_what_is_out_of_range(self, bad):
        with pytest.raises(ValueError, match=r"must be above 0|must hold"):
            FrameRate(**bad)
