"""Where frames are taken from."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import samples_by_fractions
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from holitom.video import sample_indexes

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
