"""Files that are damaged, cut off, empty or no videos: a clip of what decodes and a warning, or an error that helps."""

import contextlib
import io
import logging
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from media import HEIGHT, WIDTH, number_of, write_sound, write_video
from PIL import Image

from holitom.video import VideoError, read_video


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("film.mp4", "libx264", {"movflags": "faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("film.mkv", "libx264", {}),
        ("film.webm", "libvpx-vp9", {}),
        ("film.avi", "mpeg4", {}),
    ],
)
def test_a_film_that_was_cut_off_is_sampled_over_what_is_left_and_says_so(name, codec, container, tmp_path, caplog):
    path = cut(write_video(tmp_path / name, 90, codec, container=container), 0.6)
    with caplog.at_level(logging.WARNING, logger="holitom"):
        clip = read_video(path, 8)
    assert 20 < clip.total_frames < 80
    assert clip.indexes.tolist() == [i * clip.total_frames // 8 for i in range(8)]
    assert [number_of(frame) for frame in clip.frames] == clip.indexes.tolist()
    assert clip.duration == pytest.approx(clip.total_frames / 30, abs=0.1)
    assert "cut off: its header announces" in clip.warning
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]
    assert "Copy or download it again" in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("film.mp4", "libx264", {}),
        ("late.mkv", "libx264", {"output_ts_offset": "10"}),
        ("film.webm", "libvpx-vp9", {}),
        ("film.avi", "mpeg4", {}),
        ("film.flv", "libx264", {}),
        ("film.asf", "wmv2", {}),
        ("film.ts", "libx264", {}),
        ("film.mxf", "mpeg2video", {}),
    ],
)
def test_a_whole_film_is_not_called_cut_off_whatever_else_is_in_it(name, codec, container, tmp_path):
    rate = 25 if name.endswith("mxf") else 30
    path = write_video(tmp_path / name, 60, codec, rate=rate, container=container)
    assert read_video(path, 4).warning is None
    if not name.endswith(("ts", "mxf", "asf", "flv")):
        with path.open("ab") as file:  # what follows the film is not its business
            file.write(b"\0" * 100)
        assert read_video(path, 4).warning is None


def test_an_edit_list_does_not_make_a_film_cut_off(tmp_path):
    path = write_video(tmp_path / "film.mp4", 60, "mpeg4", options={"bf": "0"})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12
    data[entry + 4 : entry + 8] = (40 * 512).to_bytes(4, "big")  # begins at the fortieth frame, behind three keyframes
    path.write_bytes(data)
    clip = read_video(path, 100)
    assert (clip.total_frames, clip.warning) == (20, None)
    assert clip.duration == pytest.approx(20 / 30)


def test_a_recording_without_its_index_is_an_error(tmp_path):
    path = cut(write_video(tmp_path / "film.mp4", 90), 0.6)
    with pytest.raises(VideoError, match=r"film.mp4: not a video .* or cut off before its index was written.*ffmpeg"):
        read_video(path)


def test_a_film_with_damage_inside_is_sampled_over_what_decodes(tmp_path, caplog):
    path = write_video(tmp_path / "film.mp4", 90)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    for place in noise.integers(len(data) // 3, len(data) * 2 // 3, 200):
        data[place] = noise.integers(256)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="holitom"):
        clip = read_video(path, 8)
    assert len(clip) == 8
    assert "damaged" in clip.warning
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 12))])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "mpeg1video"), ("a.avi", "mpeg4")]
)
def test_any_damage_gives_a_clip_or_a_video_error(name, codec, seed, tmp_path):
    path = write_video(tmp_path / name, 40, codec)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed)
    for place in noise.integers(0, len(data), 10 ** (1 + seed % 3)):
        data[place] = noise.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(VideoError):  # any other exception fails the test
        assert 1 <= len(read_video(path, 6)) <= 6


@pytest.mark.parametrize("name", ["sound.wav", "sound.m4a", "sound.mp4", "sound.mp3"])
def test_sound_alone_is_an_error(name, tmp_path):
    codec = {"wav": "pcm_s16le", "mp3": "libmp3lame"}.get(name.split(".")[1], "aac")
    with pytest.raises(VideoError, match=r"holds no video stream, only audio. Give a file with moving pictures"):
        read_video(write_sound(tmp_path / name, codec))


def test_a_cover_picture_is_not_a_video(tmp_path):
    path = write_sound(tmp_path / "song.mp3", "libmp3lame")
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 48)).save(jpeg, "JPEG")
    picture = b"\0image/jpeg\0\3\0" + jpeg.getvalue()
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + path.read_bytes())
    with pytest.raises(VideoError, match="only audio and video, and a cover picture is not a video"):
        read_video(path)


def empty_recording(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    return path


def unknown_codec(path: Path) -> Path:
    write_video(path, 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


BAD = {
    "missing": (lambda d: d / "none.mp4", "none.mp4: no such file or folder. Check the path"),
    "address": (lambda d: "gopher://bucket/a.mp4", "no known kind of address"),
    "no bytes": (lambda d: written(d / "a.mp4", b""), "the file is empty .0 bytes.. Copy or download it again"),
    "noise": (lambda d: written(d / "a.mp4", np.random.default_rng(0).bytes(9000)), "not a video that FFmpeg can read"),
    "page": (lambda d: written(d / "a.html", b"<html></html>" * 90), "not a video that FFmpeg can read"),
    "text": (lambda d: written(d / "a.txt", b"hello world\n" * 50), "a text file, not a video. Give a video file"),
    "subtitles": (
        lambda d: written(d / "a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n"),
        "holds no video stream, only subtitle",
    ),
    "no frames": (lambda d: empty_recording(d / "a.mp4"), "holds no streams at all. The recording may be empty"),
    "only a header": (
        lambda d: cut(write_video(d / "a.mkv", 90), 0.08),
        "the video stream holds no frames. The recording may be empty",
    ),
    "unknown codec": (lambda d: unknown_codec(d / "a.mp4"), "codec is unknown .* Convert it, for example with `ffmpeg"),
    "empty folder": (lambda d: folder(d / "f"), "the folder holds no images. Put frames in it as .*.bmp"),
    "folder of texts": (lambda d: folder(d / "f", **{"a.txt": b"x"}), "the folder holds no images"),
    "folder with a bad image": (
        lambda d: folder(d / "f", **{"a.png": b"no image"}),
        "a.png: not one frame of it could be decoded .* Replace the file",
    ),
    "pipe": (lambda d: Path("/dev/null"), "neither a file nor a folder. Give a video file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_input_is_named_and_explained(case, tmp_path):
    make, message = BAD[case]
    source = make(tmp_path)
    with pytest.raises(VideoError, match=message) as caught:
        read_video(source)
    if "folder with" not in case:
        assert str(caught.value).startswith(str(source))


def test_the_error_is_a_value_error_with_parts_and_survives_a_worker(tmp_path):
    error = VideoError("a.mp4", "the file is empty", "Copy it again.")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError)
    assert (again.source, again.reason, again.advice) == ("a.mp4", "the file is empty", "Copy it again.")
    assert str(again) == str(error) == "a.mp4: the file is empty. Copy it again."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frames": 0}, ValueError, "frames must be at least 1, got 0"),
        ({"frames": "8"}, TypeError, "frames must be an int, got '8'"),
        ({"rule": "random"}, ValueError, "rule must be one of floor, endpoints"),
        ({"size": 0}, ValueError, "size must be at least 1 pixel, got 0"),
        ({"size": 12.5}, TypeError, "size must be an int number of pixels, a function or None, got 12.5"),
        ({"folder_fps": 0.0}, ValueError, "folder_fps must be above 0, got 0.0"),
    ],
)
def test_wrong_parameters_are_named_before_the_file_is_opened(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        read_video("none.mp4", **arguments)
    assert not isinstance(caught.value, VideoError)


def test_python_memory_is_that_of_the_kept_frames(tmp_path):
    peaks = []
    for frames in (60, 1500):
        path = write_video(tmp_path / f"{frames}.mkv", frames)
        tracemalloc.start()
        read_video(path, 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one = HEIGHT * WIDTH * 3
    # 1,440 frames more cost their packets' times (twice, while they are sorted), not their pixels.
    assert peaks[1] - peaks[0] < 1440 * 64 < 12 * one


def test_process_memory_does_not_grow_with_the_film(tmp_path):
    script = textwrap.dedent(
        """
        import resource, sys
        from holitom.video import read_video
        read_video(sys.argv[1], 8)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        """
    )
    peaks = []
    for frames in (60, 1200):
        path = write_video(tmp_path / f"{frames}.ts", frames, "mpeg1video", height=240, width=320)
        result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        peaks.append(float(result.stdout))
    assert peaks[1] - peaks[0] < 30  # MiB; the 1,140 frames more are 250 MiB as RGB


def test_images_of_two_sizes_are_refused(tmp_path):
    for name, side in (("a.png", 8), ("b.png", 12)):
        Image.new("RGB", (side, 8)).save(tmp_path / name)
    with pytest.raises(
        VideoError, match=r"b.png: is 12x8 pixels, while the first frame is 8x8. Give all frames of one"
    ):
        read_video(tmp_path)
