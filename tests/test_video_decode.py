"""Which frames come out of sound video files: the right ones, upright, with the right times."""

import numpy as np
import pytest
from media import HEIGHT, WIDTH, number_of, numbered, samples_by_fractions, write_video
from transformers.video_utils import default_sample_indices_fn, read_video_pyav

from holitom.video import read_video
from holitom.video.container import Reader
from holitom.video.film import Film

CONTAINERS = {
    "h264.mp4": ("libx264", {}),
    "h264-b-frames.mp4": ("libx264", {"bf": "3"}),
    "h264-open-gop.mp4": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "h264-open-gop.mkv": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "h264-open-gop.ts": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "hevc-open-gop.mkv": ("libx265", {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg1.mpg": ("mpeg1video", {}),
    "flash.flv": ("libx264", {}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_frames_are_those_of_the_indexes_and_equal_a_full_decode(name, tmp_path):
    codec, options = CONTAINERS[name]
    path = write_video(tmp_path / name, 97, codec, options=options)
    with Reader(path, name) as reader:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in reader.frames()])

    for frames in (1, 2, 7, 32, 97, 200):
        clip = read_video(path, frames)
        assert clip.total_frames == len(whole) == 97
        assert clip.warning is None
        assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()
        assert np.array_equal(clip.frames, whole[clip.indexes])
        assert np.allclose(clip.times, clip.indexes / 30, atol=2e-3)
        assert clip.fps == pytest.approx(30, rel=0.01)
        assert clip.duration == pytest.approx(97 / 30, abs=0.05)
        assert clip.source == str(path)


def theirs(path, frames):
    """transformers' own reader: frames and what it knows of the film."""
    return read_video_pyav(str(path), lambda metadata, **_: default_sample_indices_fn(metadata, num_frames=frames))


@samples_by_fractions
@pytest.mark.parametrize("frames", [1, 8, 31, 60])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("film.mp4", "libx264", {"bf": "3"}),
        ("film.mov", "libx264", {"x264-params": "colormatrix=bt709:fullrange=on"}),
        ("hevc.mp4", "libx265", {"x265-params": "log-level=none"}),
        ("film.avi", "mpeg4", {"bf": "2"}),
    ],
)
def test_pixels_and_indexes_equal_those_of_transformers(name, codec, options, frames, tmp_path):
    path = write_video(tmp_path / name, 60, codec, height=90, width=122, options=options)
    expected, metadata = theirs(path, frames)
    ours = read_video(path, frames)
    assert np.array_equal(ours.frames, expected)
    assert ours.indexes.tolist() == metadata.frames_indices.tolist()
    assert ours.fps == pytest.approx(metadata.fps)
    assert ours.duration == pytest.approx(metadata.duration)


def test_where_the_reader_of_transformers_does_less(tmp_path):
    for name in ("film.mkv", "film.ts"):
        with pytest.raises(ValueError, match="exceeds total_num_frames=0"):
            theirs(write_video(tmp_path / name, 12), 4)
        assert len(read_video(tmp_path / name, 4)) == 4
    with pytest.raises(ValueError, match="exceeds total_num_frames=12"):
        theirs(write_video(tmp_path / "film.mp4", 12), 100)
    turned = write_video(tmp_path / "turned.mp4", 12, rotation=90)
    assert theirs(turned, 4)[0].shape[1:3] == (HEIGHT, WIDTH)
    assert read_video(turned, 4).frames.shape[1:3] == (WIDTH, HEIGHT)


def test_endpoints_rule_takes_the_first_and_the_last_frame(tmp_path):
    clip = read_video(write_video(tmp_path / "film.mp4", 60), 8, rule="endpoints")
    assert clip.indexes.tolist() == [0, 8, 16, 25, 33, 42, 50, 59]
    assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()


def test_only_the_groups_of_pictures_with_a_sample_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.mp4", 600, options={"g": "10"})
    decoded = []
    original = Reader.decode
    monkeypatch.setattr(Reader, "decode", lambda self, *packet: decoded.append(packet) or original(self, *packet))
    clip = read_video(path, 4)
    assert clip.indexes.tolist() == [0, 150, 300, 450]
    assert [number_of(frame) for frame in clip.frames] == [0, 150, 300, 450]
    assert len(decoded) < 200


@pytest.mark.parametrize(
    "name", ["h264-open-gop.mkv", "h264-open-gop.ts", "hevc-open-gop.mkv", "h264-b-frames.mp4", "mpeg4.avi"]
)
def test_any_frame_alone_equals_that_of_a_full_decode(name, tmp_path):
    codec, options = CONTAINERS[name]
    path = write_video(tmp_path / name, 61, codec, options=options)
    film = Film.scanned(path, name)
    with Reader(path, name) as reader:
        whole = [frame.to_ndarray(format="rgb24") for frame in reader.frames()]
    for index in range(61):
        [(_, frame)] = film.frames(np.array([index]), None, stand_in=False)
        assert film.better is None  # found where it was looked for
        assert np.array_equal(frame, whole[index]), index


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4", "film.ts"])
def test_gradual_refresh_without_true_keyframes_is_decoded_whole(name, tmp_path):
    options = {"x264-params": "intra-refresh=1:bframes=0:keyint=12"}
    path = write_video(tmp_path / name, 97, options=options)
    with Reader(path, name) as reader:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in reader.frames()])
    for frames in (1, 3, 8):
        clip = read_video(path, frames)
        assert np.array_equal(clip.frames, whole[clip.indexes])
        assert clip.warning is None


def test_variable_frame_rate_is_sampled_by_frame_number_with_true_times(tmp_path):
    gaps = [10, 10, 10, 500, 20, 1000, 40, 40, 40, 40, 300, 10]
    pts = np.cumsum([0, *gaps]).tolist()
    clip = read_video(write_video(tmp_path / "film.mkv", len(pts), pts=pts), 5)
    assert clip.indexes.tolist() == [0, 2, 5, 7, 10]
    assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()
    assert np.allclose(clip.times, np.array(pts)[clip.indexes] / 1000, atol=2e-3)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_and_mirror_notes_are_applied(rotation, mirror, tmp_path):
    plain = read_video(write_video(tmp_path / "plain.mp4", 4), 4).frames
    turned = read_video(write_video(tmp_path / "turned.mp4", 4, rotation=rotation, mirror=mirror), 4)
    turns = rotation // 90
    expected = np.rot90(plain, turns, axes=(1, 2))  # both turn counter-clockwise
    if mirror:
        expected = expected[:, :, ::-1]
    assert turned.frames.shape[1:3] == ((WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH))
    assert np.array_equal(turned.frames, expected)


def test_a_slanted_display_matrix_leaves_the_frame_as_it_is(tmp_path):
    plain = read_video(write_video(tmp_path / "plain.mp4", 2), 2).frames
    slanted = read_video(write_video(tmp_path / "slanted.mp4", 2, rotation=30), 2).frames
    assert np.array_equal(slanted, plain)


def test_frames_cut_away_by_an_edit_list_are_not_counted(tmp_path):
    path = write_video(tmp_path / "film.mp4", 60, "mpeg4", options={"bf": "0"})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 4 + 4 + 4  # type; version and flags; number of entries
    start = int.from_bytes(data[entry + 4 : entry + 8], "big")
    tick = 512  # the mp4 writer's time units for one frame at 30 frames a second
    data[entry + 4 : entry + 8] = (start + 20 * tick).to_bytes(4, "big")
    path.write_bytes(data)
    clip = read_video(path, 100)
    assert [number_of(frame) for frame in clip.frames] == list(range(20, 60))
    assert clip.total_frames == 40
    assert clip.times[0] == 0


def test_sound_beside_the_video_changes_nothing(tmp_path):
    silent = read_video(write_video(tmp_path / "silent.mp4", 30), 8)
    loud = read_video(write_video(tmp_path / "loud.mp4", 30, sound=True), 8)
    assert np.array_equal(silent.frames, loud.frames)
    assert loud.warning is None


def test_a_short_video_gives_all_it_has(tmp_path):
    clip = read_video(write_video(tmp_path / "film.mp4", 5), 32)
    assert clip.indexes.tolist() == [0, 1, 2, 3, 4]
    assert len(clip) == clip.total_frames == 5


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_video_of_one_frame(name, tmp_path):
    clip = read_video(write_video(tmp_path / name, 1), 32)
    assert clip.frames.shape == (1, HEIGHT, WIDTH, 3)
    assert clip.indexes.tolist() == [0]
    assert clip.times.tolist() == [0.0]


def test_size_brings_the_shorter_side_down_and_never_up(tmp_path):
    path = write_video(tmp_path / "film.mp4", 4, height=96, width=128, rotation=90)
    assert read_video(path, 2, size=48).frames.shape == (2, 64, 48, 3)
    assert read_video(path, 2, size=500).frames.shape == (2, 128, 96, 3)
    small = read_video(path, 2, size=48).frames.astype(float)
    full = read_video(path, 2).frames.reshape(2, 64, 2, 48, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - full).mean() < 6


def test_names_that_mean_something_to_ffmpeg_are_only_names(tmp_path):
    for name in ("shot%03d.mp4", "concat:a|b.mp4", "film with spaces #1.mp4", "фильм.mp4"):
        clip = read_video(write_video(tmp_path / "plain.mp4", 3).rename(tmp_path / name), 3)
        assert [number_of(frame) for frame in clip.frames] == [0, 1, 2]


def test_the_painted_number_survives():
    assert [number_of(numbered(n)) for n in (0, 1, 255, 256, 40_000)] == [0, 1, 255, 256, 40_000]
