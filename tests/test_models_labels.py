"""Which images form a video, where only the text between them says so."""

from __future__ import annotations

import pytest
import torch

from holitom.models.base import VideoLayout
from holitom.models.labels import counts_up, join_frames, tells_time

IMAGE, OPEN, CLOSE, LINE, FRAME, COLON, PICTURE = 90, 91, 92, 93, 94, 95, 96
SIZE = 4
LETTERS = [70, 71, 72, 73, 74]  # a tokenizer that spells "Frame"


def digits(number):
    return [int(digit) + 1 for digit in str(number)]


def frames(numbers, name=(FRAME,), tiles=1):
    ids = []
    for at, number in enumerate(numbers):
        ids += [*([LINE] if at else []), *name, *digits(number), COLON, OPEN, *[IMAGE] * SIZE * tiles, CLOSE]
    return ids


def videos_of(ids, joins=counts_up, rows=1):
    batch = torch.tensor([ids] * rows)
    placeholders = batch == IMAGE
    tiles = [VideoLayout.contiguous(1, (2, 2)) for _ in range(int(placeholders[0].sum()) // SIZE)]
    marked, videos = join_frames(batch, placeholders, tiles, joins)
    return [video.frames for video in videos], marked


@pytest.mark.parametrize("name", [(FRAME,), LETTERS])
@pytest.mark.parametrize("count", [2, 3, 9, 10, 12, 100, 101])
def test_frames_that_count_up_are_one_video(count, name):
    found, marked = videos_of([5, 6, LINE, *frames(range(1, count + 1), name), LINE, 7])
    assert found == [count]
    assert int(marked.sum()) == count * SIZE


def test_another_video_starts_where_the_numbers_start_anew():
    both = [5, LINE, *frames([1, 2, 3]), LINE, *frames([1, 2]), 7]
    assert videos_of(both)[0] == [3, 2]
    assert videos_of([5, LINE, *frames([1, 2, 3]), 8, 9, 8, LINE, *frames([1, 2]), 7])[0] == [3, 2]


def test_images_are_not_frames():
    plain = [OPEN, *[IMAGE] * SIZE, CLOSE]
    assert videos_of([5, *plain, LINE, *plain, LINE, *plain, 6])[0] == []
    assert videos_of([5, *plain, 7, 8, *plain, 9, 6, *plain, 6])[0] == []
    assert videos_of([5, *frames([1, 2, 3], tiles=2), 6])[0] == []
    assert videos_of([5, LINE, *frames([1]), 6])[0] == []


def test_images_before_and_after_a_video_stay_out_of_it():
    plain = [OPEN, *[IMAGE] * SIZE * 3, CLOSE]
    ids = [*plain, LINE, 5, *frames([1, 2, 3, 4]), LINE, *plain, 8]
    found, marked = videos_of(ids)
    assert found == [4]
    assert marked[0].nonzero()[:, 0].min() > len(plain)
    assert int(marked.sum()) == 4 * SIZE


def test_rows_repeated_for_beams_share_their_videos():
    ids = [5, LINE, *frames([1, 2, 3]), 7]
    batch = torch.tensor([ids] * 3)
    tiles = [VideoLayout.contiguous(1, (2, 2)) for _ in range(3)]
    marked, videos = join_frames(batch, batch == IMAGE, tiles, counts_up)
    assert [video.frames for video in videos] == [3]
    assert marked.sum(1).tolist() == [12, 12, 12]


def timed(times):
    ids = [40, 41, 42, LINE]
    for at, (minutes, seconds) in enumerate(times):
        clock = [*digits(f"{minutes:02d}"), COLON, *digits(f"{seconds:02d}")]
        ids += [OPEN] * bool(at) + [LINE + 50 if at == 0 else LINE, FRAME, 33, *clock, COLON, OPEN, 34]
        ids += [IMAGE] * SIZE
    return [*ids, OPEN, LINE]


@pytest.mark.parametrize(
    "times",
    [[(0, 0), (0, 1)], [(0, 59), (1, 0), (1, 1)], [(0, 0), (0, 0), (0, 1)], [(0, 9), (0, 10), (9, 59), (10, 0)]],
)
def test_frames_with_times_are_one_video(times):
    assert videos_of(timed(times), tells_time)[0] == [len(times)]
    assert videos_of([*timed(times), 3, *timed(times), 4], tells_time)[0] == [len(times)] * 2


def test_tiles_of_a_split_image_are_no_video():
    ids = [5]
    for tile in range(6):
        ids += [OPEN, 50 + tile, *[IMAGE] * SIZE]
    ids += [LINE, OPEN, 34, *[IMAGE] * SIZE, OPEN, 6]
    assert videos_of(ids, tells_time)[0] == []
