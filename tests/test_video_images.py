"""Folders of images and animations as videos."""

import contextlib

import numpy as np
import pytest
from media import number_of, numbered
from PIL import Image

from holitom.video import VideoError, read_video


def pictures(count):
    return [Image.fromarray(numbered(n)) for n in range(count)]


def test_a_folder_is_read_in_natural_order(tmp_path):
    for number, picture in enumerate(pictures(12)):
        picture.save(tmp_path / f"shot {number}.PNG")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_text("not a frame")
    clip = read_video(tmp_path, 32, folder_fps=2.0)
    assert [number_of(frame) for frame in clip.frames] == list(range(12))
    assert clip.times.tolist() == [n / 2 for n in range(12)]
    assert (clip.fps, clip.total_frames, clip.duration) == (2.0, 12, 6.0)


def test_a_folder_opens_only_the_sampled_images(tmp_path):
    for number, picture in enumerate(pictures(12)):
        picture.save(tmp_path / f"{number:03d}.jpg")
    (tmp_path / "001.jpg").write_text("broken, and not among the four")
    clip = read_video(tmp_path, 4)
    assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist() == [0, 3, 6, 9]


def test_images_are_turned_upright_by_their_exif_note(tmp_path):
    picture = Image.fromarray(numbered(5))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_video(tmp_path).frames[0], np.rot90(numbered(5), -1))


@pytest.mark.parametrize("name", ["film.gif", "film.webp", "film.png"])
def test_an_animation_has_its_frames_and_delays(name, tmp_path):
    path = tmp_path / name
    delays = [100, 100, 400, 50, 50, 200, 1000]
    first, *rest = pictures(7)
    first.save(path, save_all=True, append_images=rest, duration=delays, loop=0, lossless=True)
    clip = read_video(path, 32)
    assert [number_of(frame) for frame in clip.frames] == list(range(7))
    assert np.allclose(clip.times, np.cumsum([0, *delays[:-1]]) / 1000)
    assert clip.duration == pytest.approx(1.9)
    assert clip.fps == pytest.approx(7 / 1.9)
    assert read_video(path, 3).indexes.tolist() == [0, 2, 4]
    assert [number_of(frame) for frame in read_video(path, 3).frames] == [0, 2, 4]


def test_gif_frames_that_hold_only_a_change_are_shown_whole(tmp_path):
    still = numbered(1)
    frames = []
    for step in range(4):
        frame = still.copy()
        frame[30:40, step * 10 : step * 10 + 8] = 255
        frames.append(frame)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100, optimize=True)
    clip = read_video(tmp_path / "a.gif")
    assert np.abs(clip.frames.astype(int) - np.stack(frames)).mean() < 8
    assert clip.fps == pytest.approx(10)


def test_a_still_image_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(numbered(9)).save(tmp_path / "a.png")
    clip = read_video(tmp_path / "a.png", size=24)
    assert clip.frames.shape == (1, 24, 32, 3)
    assert number_of(read_video(tmp_path / "a.png").frames[0]) == 9


def test_a_cut_off_animation_is_sampled_over_what_is_left(tmp_path, caplog):
    path = tmp_path / "film.gif"
    first, *rest = pictures(20)
    first.save(path, save_all=True, append_images=rest, duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = read_video(path, 4)
    assert 5 < clip.total_frames < 15
    assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()
    assert "cut off" in clip.warning
    assert "cut off" in caplog.text


def test_a_broken_image_is_an_error(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(numbered(9)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(VideoError, match=r"a.png: not one frame of it could be decoded .* Replace the file"):
        read_video(path)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("name", ["film.gif", "film.webp", "film.png"])
def test_any_damage_gives_a_clip_or_a_video_error(name, seed, tmp_path):
    path = tmp_path / name
    first, *rest = pictures(6)
    first.save(path, save_all=True, append_images=rest, duration=100)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed)
    for place in noise.integers(12, len(data), 10 ** (seed % 3)):
        data[place] = noise.integers(256)
    path.write_bytes(data[: noise.integers(40, len(data))] if seed % 2 else data)
    with contextlib.suppress(VideoError):  # any other exception fails the test
        assert len(read_video(path, 3)) >= 1
