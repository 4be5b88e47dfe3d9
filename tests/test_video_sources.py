"""What a video can be given as, and what is said of everything else."""

import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from media import number_of, numbered, write_video
from PIL import Image

from holitom.video import Clip, FetchLimits, VideoError, open_video, read_video

TEN = np.stack([numbered(n) for n in range(10)])


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("films") / "a film.mp4", 20)


@pytest.fixture(scope="module")
def server(film):
    """Serves the film, endless bytes, bytes one by one, a picture without a length, and nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing.mp4":
                self.send_error(404)
                return
            self.send_response(200)
            data = film.read_bytes()
            if self.path == "/film.mp4":
                self.send_header("Content-Length", str(len(data)))
            if self.path == "/huge.mp4":
                self.send_header("Content-Length", str(10**12))
            self.end_headers()
            try:
                if self.path == "/slow.mp4":
                    for byte in data[:200]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                while self.path == "/endless.mp4":
                    self.wfile.write(bytes(2**16))
                self.wfile.write(data)
            except OSError:
                pass

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def numbers(clip):
    return [number_of(frame) for frame in clip.frames]


GIVEN = {
    "str": str,
    "path": lambda film: film,
    "file address": lambda film: film.as_uri(),
    "file address without escapes": lambda film: f"file://{film}",
    "bytes": lambda film: film.read_bytes(),
    "bytearray": lambda film: bytearray(film.read_bytes()),
    "memory": lambda film: memoryview(film.read_bytes()),
    "BytesIO": lambda film: io.BytesIO(film.read_bytes()),
    "read to its end": lambda film: at_end(io.BytesIO(film.read_bytes())),
    "open file": lambda film: film.open("rb"),
    "unbuffered": lambda film: film.open("rb", buffering=0),
}


def at_end(file):
    file.seek(0, 2)
    return file


@pytest.mark.parametrize("kind", GIVEN)
def test_a_film_however_it_is_given(kind, film):
    assert numbers(read_video(GIVEN[kind](film), 4)) == [0, 5, 10, 15]
    stream = open_video(GIVEN[kind](film), frames=4)
    assert [number for clip in stream.chunks(3) for number in numbers(clip)] == [0, 5, 10, 15]
    assert [number for clip in stream.chunks(3) for number in numbers(clip)] == [0, 5, 10, 15]  # decoded once more


def test_an_open_file_is_left_where_it_was(film):
    with film.open("rb") as file:
        file.seek(5)
        clip = read_video(file, 2)
        assert file.tell() == 5
    assert clip.source == str(film)
    assert read_video(film.read_bytes(), 2).source == "<bytes>"


def test_temporary_copies_go_with_what_needs_them(film, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read_video(film.read_bytes(), 2)
    assert list(tmp_path.iterdir()) == []
    stream = open_video(film.read_bytes(), frames=2)
    assert len(list(tmp_path.iterdir())) == 1
    del stream
    assert list(tmp_path.iterdir()) == []


ARRAYS = {
    "uint8": TEN,
    "channels first": TEN.transpose(0, 3, 1, 2),
    "integers": TEN.astype(np.int64),
    "floats": TEN.astype(np.float32) / 255,
    "tensor": torch.from_numpy(TEN),
    "tensor, channels first": torch.from_numpy(TEN).permute(0, 3, 1, 2),
    "float tensor": torch.from_numpy(TEN).permute(0, 3, 1, 2) / 255,
    "half tensor": (torch.from_numpy(TEN) > 127).to(torch.bfloat16),
    "list of arrays": list(TEN),
    "list of tensors": list(torch.from_numpy(TEN).permute(0, 3, 1, 2)),
    "list of images": [Image.fromarray(frame) for frame in TEN],
    "tuple of images": tuple(Image.fromarray(frame) for frame in TEN),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_frames_in_memory(kind):
    clip = read_video(ARRAYS[kind], 5, folder_fps=4.0)
    assert numbers(clip) == [0, 2, 4, 6, 8]
    if kind != "half tensor":
        assert np.array_equal(clip.frames, TEN[::2])
    assert clip.times.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert (clip.fps, clip.total_frames, clip.duration) == (4.0, 10, 2.5)
    assert read_video(ARRAYS[kind], 5, size=24).frames.shape == (5, 24, 32, 3)
    assert open_video(ARRAYS[kind], fps=1, folder_fps=2.0).indexes.tolist() == [0, 2, 4, 6, 8]


def test_a_list_of_paths(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(numbered(number)).save(path)
    assert numbers(read_video([paths[2], str(paths[0])])) == [2, 0]


def test_names_that_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, number in (("~", 1), ("~nobody-of-that-name.png", 2), ("home/in.png", 3)):
        Image.fromarray(numbered(number)).save(tmp_path / name, format="PNG")
    assert numbers(read_video("~nobody-of-that-name.png")) == [2]
    assert numbers(read_video("~/in.png")) == [3]
    with pytest.raises(VideoError, match=r"~nobody/film.mp4: no such file or folder"):
        read_video("~nobody/film.mp4")


class TestAddresses:
    def test_a_film_is_fetched(self, server):
        clip = read_video(f"{server}/film.mp4", 4)
        assert numbers(clip) == [0, 5, 10, 15]
        assert clip.source == f"{server}/film.mp4"
        assert len(open_video(f"{server}/without-length.mp4", frames=4)) == 4

    @pytest.mark.parametrize("name", ["huge.mp4", "endless.mp4"])
    def test_its_size_is_bounded(self, name, server):
        with pytest.raises(VideoError, match=rf"{name}: larger than 0.1 MB, the limit"):
            read_video(f"{server}/{name}", limits=FetchLimits(megabytes=0.1))

    def test_its_time_is_bounded(self, server):
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"slow.mp4: not fetched within 0.5 s"):
            read_video(f"{server}/slow.mp4", limits=FetchLimits(seconds=0.5))
        assert time.monotonic() - began < 5

    def test_an_endless_file_is_bounded(self, film):
        with (
            film.open("rb") as file,
            pytest.raises(VideoError, match=r"a film.mp4: larger than 0.001 MB. Raise the limit"),
        ):
            read_video(file, limits=FetchLimits(megabytes=0.001))

    def test_the_copy_goes_with_what_needs_it(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        read_video(f"{server}/film.mp4", 2)
        assert list(tmp_path.iterdir()) == []
        stream = open_video(f"{server}/film.mp4", frames=2)
        assert len(list(tmp_path.iterdir())) == 1
        assert sum(len(clip) for clip in stream.chunks(2)) == 2
        del stream
        assert list(tmp_path.iterdir()) == []

    def test_what_the_server_says_is_told(self, server):
        with pytest.raises(VideoError, match=r"missing.mp4: 127.0.0.1 answered with status 404 .Not Found"):
            read_video(f"{server}/missing.mp4")
        with pytest.raises(VideoError, match=r"/a.mp4: 127.0.0.1 cannot be reached"):
            read_video("http://127.0.0.1:1/a.mp4")

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("gopher://bucket/a.mp4", "gopher://bucket/a.mp4: no known kind of address"),
            ("file://elsewhere/a.mp4", "an address on the machine elsewhere. Give the path of a local file"),
            ("file:///nowhere/a%20film.mp4", "file:///nowhere/a%20film.mp4: no such file or folder"),
            ("data:video/mp4;base64,SECRET", "^data:...: a video inside its address. Decode it, and give the bytes"),
        ],
    )
    def test_addresses_of_other_kinds(self, address, message):
        with pytest.raises(VideoError, match=message) as told:
            read_video(address)
        assert "SECRET" not in str(told.value)


class TestRefused:
    @pytest.mark.parametrize("read", [read_video, lambda source: open_video(source, fps=1)])
    @pytest.mark.parametrize("source", [None, 3, {"path": "a"}, Clip.from_frames(TEN), iter(TEN), object()])
    def test_other_types_say_what_is_taken(self, source, read):
        with pytest.raises(TypeError, match=r"source must be a path, an address .* got \w+$"):
            read(source)

    def test_a_file_that_is_open_as_text(self, film):
        with film.open(errors="ignore") as file, pytest.raises(TypeError, match="open it with mode 'rb'"):
            read_video(file)
        with pytest.raises(TypeError, match="open it with mode 'rb'"):
            read_video(io.StringIO("text"))

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (b"", "<bytes>: holds nothing"),
            (b"SECRET" * 50, "<bytes>: "),
            (io.BytesIO(b"SECRET" * 50), "<BytesIO>: "),
            ("x" * 5000, r"x\.\.\. \(5000 characters\): cannot be opened"),
            ([], "<list>: an empty list"),
            (TEN[0], r"<array>: an array of shape \(48, 64, 3\). Frames are \(T, H, W, 3\) or"),
            (TEN[..., :2], r"<array>: an array of shape \(10, 48, 64, 2\)"),
            (TEN[:0], "<array>: an array of shape"),
            (TEN > 3, "<array>: an array of bool"),
            (TEN * 1.0, "<array>: float64 values from 0 to 255. Give uint8"),
            (TEN.astype(np.int16) - 1, "<array>: int16 values from -1 to 254"),
            (np.full((1, 8, 8, 3), np.nan), "<array>: float64 values from nan"),
            ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], r"<list>\[1\]: is 9x8 pixels"),
            (["/nowhere/a.png"], "/nowhere/a.png: no such file"),
        ],
    )
    def test_what_is_wrong_is_said_and_never_what_is_inside(self, source, message):
        with pytest.raises(VideoError, match=message) as told:
            read_video(source)
        assert "SECRET" not in str(told.value)
        assert "holitom-" not in str(told.value)  # the name of a temporary copy
        assert len(str(told.value)) < 800

    def test_a_list_of_something_else(self):
        with pytest.raises(TypeError, match=r"a list of pictures holds PIL images, .* got int at place 1"):
            read_video([Image.new("RGB", (8, 8)), 3])
