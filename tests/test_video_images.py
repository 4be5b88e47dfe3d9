"""Folders of images and animations as videos."""

import contextlib
import os
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from media import number_of, numbered, write_video
from PIL import Image

from holitom.video import VideoError, open_video, read_video

DATA = Path(__file__).parent / "data" / "video"


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


@pytest.mark.parametrize("name", ["film.gif", "film.webp", "film.png", "film.avif"])
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


@pytest.mark.parametrize("seed", [*range(9), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(9, 30))])
@pytest.mark.parametrize("name", ["film.gif", "film.webp", "film.png", "film.avif", "one.tif", "one.jpg"])
def test_any_damage_gives_a_clip_or_a_video_error(name, seed, tmp_path):
    path = tmp_path / name
    first, *rest = pictures(6)
    first.save(path, save_all=path.stem == "film", append_images=rest, duration=100)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed)
    for place in noise.integers(12, len(data), 10 ** (seed % 3)):
        data[place] = noise.integers(256)
    path.write_bytes(data[: noise.integers(40, len(data))] if seed % 2 else data)
    with contextlib.suppress(VideoError):  # any other exception fails the test
        assert len(read_video(path, 3)) >= 1
    with contextlib.suppress(VideoError):
        assert sum(len(clip) for clip in open_video(path, fps=5).chunks(2)) >= 1


class TestKinds:
    """What is in a file with several pictures, and how deep they are."""

    def test_the_tiles_of_an_avif_are_put_together(self):
        frame = read_video(DATA / "grid.avif").frames[0]
        assert frame.shape == (256, 256, 3)
        assert len({tuple(frame[row, column]) for row in (64, 192) for column in (64, 192)}) == 4

    def test_the_tiles_of_a_heif_picture_are_refused_where_pillow_cannot_read_it(self, tmp_path):
        data = bytearray((DATA / "grid.avif").read_bytes())
        data[8:12] = b"heic"
        data = data.replace(b"avif", b"heic").replace(b"av01", b"hvc1")
        (tmp_path / "photo.heic").write_bytes(data)
        for read in (read_video, lambda path: open_video(path, fps=1)):
            with pytest.raises(VideoError, match=r"photo.heic: a HEIF picture made of tiles, .* Convert it to JPEG"):
                read(tmp_path / "photo.heic")

    @pytest.mark.parametrize("read", [lambda p: read_video(p).frames, lambda p: all_of(open_video(p, frames=9))])
    def test_an_apngs_default_image_is_no_frame_of_it(self, read):
        frames = read(DATA / "def.png")
        assert len(frames) == 4
        assert len(np.unique(frames.reshape(4, -1), axis=0)) == 4
        assert not np.array_equal(frames[0], np.asarray(Image.open(DATA / "def.png").convert("RGB")))

    @pytest.mark.parametrize("name", ["two.jpg", "pages.tiff"])
    def test_further_pictures_and_pages_are_no_frames(self, name):
        clip = read_video(DATA / name)
        assert np.array_equal(clip.frames, np.asarray(Image.open(DATA / name).convert("RGB"))[None])
        assert len(all_of(open_video(DATA / name, fps=1))) == 1

    def test_a_tiff_whose_pages_become_smaller(self, tmp_path):
        pages = [Image.fromarray(numbered(3, height, 2 * height)) for height in (64, 32, 16)]
        pages[0].save(tmp_path / "pyramid.tif", save_all=True, append_images=pages[1:])
        assert [number_of(frame) for frame in read_video(tmp_path / "pyramid.tif").frames] == [3]

    def test_sixteen_bits_are_scaled_as_ffmpeg_does(self):
        row = read_video(DATA / "g16.png").frames[0, 0, ::12, 0]
        assert row.tolist() == [0, 32, 65, 97, 129, 162, 194, 226]

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("16.tif", np.linspace(0, 65535, 256).astype(np.uint16)),
            ("32.tif", np.linspace(0, 2**31 - 1, 256).astype(np.int32)),
            ("32 with 16 in use.tif", np.linspace(0, 65535, 256).astype(np.int32)),
            ("32 with 8 in use.tif", np.arange(256).astype(np.int32)),
            ("signed.tif", np.linspace(-1000, 70000, 256).astype(np.int32)),
            ("to one.tif", np.linspace(0, 1, 256).astype(np.float32)),
            ("to hundred.tif", np.linspace(0, 100, 256).astype(np.float32)),
            ("signed floats.tif", np.linspace(-3, 5, 256).astype(np.float32)),
        ],
    )
    def test_deep_pictures_are_scaled(self, name, values, tmp_path):
        Image.fromarray(np.tile(values, (4, 1))).save(tmp_path / name)
        frame = read_video(tmp_path / name).frames[0]
        assert np.abs(frame[0, :, 0].astype(int) - np.arange(256)).max() <= 1
        assert (frame == frame[:1, :, :1]).all()

    def test_a_tiff_of_unsigned_integers(self, tmp_path):
        values = np.linspace(0, 2**32 - 1, 256).astype(np.uint32)
        path = tmp_path / "unsigned.tif"
        Image.fromarray(np.tile(values.view(np.int32), (4, 1))).save(path)
        signed = struct.pack("<HHIHH", 339, 3, 1, 2, 0)  # the tag SampleFormat
        assert path.read_bytes().count(signed) == 1
        path.write_bytes(path.read_bytes().replace(signed, struct.pack("<HHIHH", 339, 3, 1, 1, 0)))
        assert np.abs(read_video(path).frames[0, 0, :, 0].astype(int) - np.arange(256)).max() <= 1

    def test_the_frames_before_damage_are_sampled(self, tmp_path):
        path = tmp_path / "film.png"
        first, *rest = [Image.fromarray(numbered(n)) for n in range(9)]
        first.save(path, save_all=True, append_images=rest, duration=100)
        data = bytearray(path.read_bytes())
        place = [at for at in range(len(data)) if data[at : at + 4] == b"fdAT"][4] + 20
        data[place : place + 200] = bytes(200)
        path.write_bytes(data)
        clip = read_video(path, 2)
        assert 2 <= clip.total_frames < 9
        assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()
        assert "cut off" in clip.warning


def all_of(stream):
    return np.concatenate([clip.frames for clip in stream.chunks(4)])


def write_gif(path, width, height, frames, at=None, delay=10):
    """A GIF of ``frames`` frames of which each paints one black pixel, or ``at`` (width, height)."""
    image = b"," + struct.pack("<HHHHB", 0, 0, *(at or (1, 1)), 0) + b"\x02\x02\x4c\x01\x00"
    control = b"!\xf9\x04\0" + struct.pack("<H", delay) + b"\0\0"
    header = b"GIF89a" + struct.pack("<HHB", width, height, 0x80) + b"\0\0" + b"\0\0\0\xff\xff\xff"
    path.write_bytes(header + (control + image) * frames + b";")
    return path


class TestLimits:
    """A few bytes can ask for any number of pixels."""

    @pytest.mark.parametrize("read", [read_video, lambda path: open_video(path, fps=1)])
    def test_pixels_that_would_be_decoded_are_bounded_before_one_is(self, read, tmp_path):
        path = write_gif(tmp_path / "a.gif", 5000, 4000, 300)
        assert path.stat().st_size < 8000
        with (
            peak_below(50e6),
            pytest.raises(
                VideoError,
                match=r"a.gif: 300 frames of 5000x4000 are more than the .* or raise PIL.Image.MAX_IMAGE_PIXELS",
            ),
        ):
            read(path)

    @pytest.mark.parametrize("read", [read_video, lambda path: open_video(path, fps=1)])
    def test_a_frame_of_an_animation_is_bounded_to_a_quarter(self, read, tmp_path):
        path = write_gif(tmp_path / "a.gif", 8000, 8000, 300)
        assert path.stat().st_size < 8000
        with (
            peak_below(50e6),
            pytest.raises(VideoError, match=r"a frame of 64,000,000 pixels is larger than the 22,36"),
        ):
            read(path)

    @pytest.mark.parametrize(
        ("size", "at"), [((13000, 13000), (1, 1)), ((60000, 60000), (1, 1)), ((8, 8), (65535, 65535))]
    )
    @pytest.mark.parametrize("read", [read_video, lambda path: open_video(path, fps=1)])
    def test_one_frame_is_bounded(self, read, size, at, tmp_path):
        path = write_gif(tmp_path / "a.gif", *size, 1, at)
        assert path.stat().st_size < 108
        with (
            peak_below(50e6),
            pytest.raises(VideoError, match=r"a.gif: a frame of .* pixels is larger than the 89,478,485") as told,
        ):
            read(path)
        assert "damage" not in str(told.value)

    def test_pixels_that_would_be_kept_are_bounded(self, tmp_path):
        path = write_gif(tmp_path / "a.gif", 5000, 4000, 40)
        with pytest.raises(
            VideoError, match=r"a.gif: 40 frames of 5000x4000 .* kept of one video. Sample fewer frames"
        ):
            read_video(path, 64)

    def test_the_limit_is_pillows_and_the_same_in_a_folder(self, tmp_path, monkeypatch):
        for number in range(3):
            Image.fromarray(numbered(number)).save(tmp_path / f"{number}.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)
        for source in (tmp_path, tmp_path / "0.png"):
            with pytest.raises(VideoError, match=r"0.png: a frame of 3,072 pixels is larger than the 3,071"):
                read_video(source)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64)
        assert len(read_video(tmp_path)) == 3
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert len(read_video(tmp_path)) == 3

    def test_the_delays_of_a_gif_are_read_without_painting(self, tmp_path, monkeypatch):
        path = write_gif(tmp_path / "a.gif", 100, 100, 50, delay=25)
        monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("a frame was painted"))
        stream = open_video(path, fps=1)
        assert (stream.total_frames, stream.duration) == (50, 12.5)
        assert stream.times.tolist() == list(range(13))

    @pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
    def test_memory_follows_what_is_kept(self, name, tmp_path):
        path = tmp_path / name
        if name == "a.gif":
            write_gif(path, 2000, 2000, 32)
        else:
            write_video(path, 32, height=1088, width=1920)
        script = """
            import resource, sys
            from holitom.video import read_video
            read_video(sys.argv[1], 1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert len(read_video(sys.argv[1], 32, size=24)) == 32
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
        grown = int(run_python(script, path)) * 1024
        assert grown < 40e6, grown  # bytes; the frames as they are in the file have 384 and 200 million


def run_python(script, *arguments):
    """What a script prints in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


@contextlib.contextmanager
def peak_below(size):
    """numpy's arrays are traced; what Pillow paints on is not."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()
