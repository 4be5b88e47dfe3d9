"""Files of strangers: no other file is opened, damage always looks the same, and nothing asks for time or memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_films import FRAMES, X264, make, needs_ffmpeg, raw
from media import number_of, write_video
from mutations import flipped
from PIL import Image
from playlists import KINDS, playlist
from tiny_checkpoints import build_llava_onevision

from holitom.corpus import Item, PromptReader
from holitom.corpus.reading import Failure, attempt
from holitom.video import VideoError, open_video, read_video, sample_by_rate
from holitom.video.container import decoder_threads

DATA = Path(__file__).parent / "data" / "video"


@pytest.mark.parametrize("kind", KINDS)
def test_a_playlist_does_not_open_what_it_names(kind, tmp_path):
    path = playlist(tmp_path, kind)
    for read in (read_video, lambda path: open_video(path, fps=1)):
        with pytest.raises(VideoError, match="a playlist, not a video: it names other files, which are not opened"):
            read(path)


@pytest.mark.parametrize("kind", ["sibling.m3u8", "absolute.m3u8", "list.ffconcat"])
def test_a_playlist_of_local_files_is_read_where_one_asks_for_it(kind, tmp_path):
    clip = read_video(playlist(tmp_path, kind), 100, playlists=True)
    assert [number_of(frame) for frame in clip.frames] == list(range(24))
    assert len(open_video(tmp_path / kind, frames=5, playlists=True)) == 5


def test_numbered_pictures_are_not_taken_from_a_folder_by_a_pattern(tmp_path):
    for number in range(3):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "%03d.png").write_bytes(b"no picture")
    with pytest.raises(VideoError):
        read_video(tmp_path / "%03d.png")


def test_an_index_of_subtitles_does_not_open_the_file_beside_it(tmp_path):
    write_video(tmp_path / "film.ts", 3).rename(tmp_path / "film.sub")
    (tmp_path / "film.idx").write_text("# VobSub index file, v7\nsize: 64x48\nid: en, index: 0\n")
    with pytest.raises(VideoError):
        read_video(tmp_path / "film.idx")


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", f"{X264} -bf 3"),
        ("a.ts", f"{X264} -bf 3"),
        ("a.avi", "-c:v mpeg4 -q:v 2 -bf 2"),
        ("a.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=12:bframes=3"),
        ("a.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12 -b:v 1M"),
        ("b.webm", "-c:v libvpx -deadline realtime -g 12 -b:v 1M"),
        ("b.avi", "-c:v mjpeg -q:v 2"),
        ("b.mkv", "-c:v ffv1"),
    ],
)
def test_a_damaged_film_gives_the_same_whatever_the_number_of_threads(name, options, tmp_path):
    data = make(name, [f"IN {options} OUT"], raw(tmp_path), tmp_path).read_bytes()
    damaged = 0
    for seed in range(1, 17, 2):
        (tmp_path / name).write_bytes(flipped(data, seed))
        results = [everything(tmp_path / name, threads) for threads in (1, 2, 7, 16, 16)]
        assert all(result == results[0] for result in results)
        damaged += any(isinstance(part, str) for part in results[0])
    assert damaged or name == "b.mkv"  # FFV1 repairs what it notices


@pytest.mark.parametrize("kind", ["absolute.m3u8", "list.ffconcat"])
def test_a_playlist_in_a_corpus_is_a_row_with_its_error(kind, tmp_path):
    checkpoint = str(build_llava_onevision(tmp_path / "model"))
    path = str(playlist(tmp_path, kind))
    failure = attempt(PromptReader(checkpoint, ("What?",), 4), Item(path, path))
    assert isinstance(failure, Failure)
    assert "a playlist, not a video" in failure.error


def everything(path: Path, threads: int) -> list[object]:
    """What reading a file in both ways gives: pixels, places, times and warnings, or the error."""
    found: list[object] = []
    token = decoder_threads.set(threads)
    try:
        clip = read_video(path, FRAMES // 2)
        found += [clip.frames.tobytes(), clip.indexes.tolist(), clip.times.tolist(), clip.warning]
        stream = open_video(path, fps=12)
        for part in stream.chunks(5):
            found += [part.frames.tobytes(), part.indexes.tolist(), part.times.tolist()]
        found.append(stream.warning)
    except VideoError as error:
        found.append(str(error))
    finally:
        decoder_threads.reset(token)
    return found


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_flipped_bits_give_frames_or_a_video_error_soon_and_in_little_memory(count, tmp_path):
    paths = []
    for suffix, codec in {"mp4": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "libx264"}.items():
        options = {"deadline": "realtime"} if suffix == "webm" else None
        paths.append(write_video(tmp_path / f"film.{suffix}", 60, codec, options=options))
    first, *others = (Image.fromarray(frame) for frame in read_video(DATA / "full.mp4", 20).frames)
    for suffix in ("gif", "png"):
        paths.append(tmp_path / f"film.{suffix}")
        first.save(paths[-1], save_all=True, append_images=others, duration=40)
    command = [sys.executable, Path(__file__).parent / "mutations.py", "0", str(count), *paths]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [name for name, *_ in lines] == [path.name for path in paths]
    for _, read, refused, mebibytes in lines:
        assert int(read) + int(refused) == 3 * count
        assert int(read) > 0
        assert int(mebibytes) < 2048


def test_times_of_a_lying_header_ask_for_no_memory(tmp_path):
    path = write_video(tmp_path / "film.mkv", 40, pts=[*range(0, 390, 10), 2**40])
    assert len(open_video(path, fps=1000.0)) == 40
    assert len(read_video(path, fps=1e9)) == 40
    begins = np.array([0.0, 1e17])
    assert sample_by_rate(begins, 2e17, 1e9).tolist() == [0, 1]
    with pytest.raises(ValueError, match="fps must be above 0"):
        sample_by_rate(begins, 2e17, 0)


def test_a_film_with_frames_too_large_is_refused_by_its_size(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.mp4", 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(VideoError, match="a frame of 3,072 pixels is larger than the 3,000"):
        read_video(path)
