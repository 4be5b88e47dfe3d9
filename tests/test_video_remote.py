"""Remote videos are fetched within limits, and what stands against it is said in words."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from holitom.video import VideoError
from holitom.video.remote import FetchLimits, fetched


class Handler(BaseHTTPRequestHandler):
    """A store in which each path fails in its own way."""

    def do_GET(self) -> None:
        kind = self.path.partition("?")[0].strip("/")
        if kind == "moved.mp4":
            self.send_response(302)
            self.send_header("Location", "/film.mp4")
            self.end_headers()
        elif kind in ("film.mp4", "endless.mp4", "slow.mp4", "broken.mp4"):
            self.send_response(200)
            if kind != "endless.mp4":
                self.send_header("Content-Length", {"film.mp4": "4", "slow.mp4": "1000", "broken.mp4": "99"}[kind])
            self.end_headers()
            with suppress(OSError):
                self.send(kind)
        else:
            self.send_error(404)

    def send(self, kind: str) -> None:
        if kind == "endless.mp4":
            while True:
                self.wfile.write(bytes(100_000))
        self.wfile.write(b"film")
        if kind == "slow.mp4":
            for _ in range(60):
                time.sleep(0.5)
                self.wfile.write(b"0")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("path", ["film.mp4", "moved.mp4", "film.mp4?sign=a%2Fb[1]*"])
def test_a_copy_is_there_as_long_as_it_is_needed(server, path, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with fetched(f"{server}/{path}") as copy:
        assert copy.read_bytes() == b"film"
        assert copy.suffix == ".mp4"
        assert tmp_path in copy.parents
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gone.mp4", r"gone\.mp4: 127\.0\.0\.1 answered with status 404 \(Not Found\)"),
        ("endless.mp4", r"endless\.mp4: larger than 1 MB, the limit of a download"),
        ("slow.mp4", r"slow\.mp4: not fetched within 2 s, the limit of a download"),
        ("broken.mp4", r"broken\.mp4: 127\.0\.0\.1 .*(ended after 4 of 99 bytes|broke off)"),
    ],
)
def test_what_stands_against_it_is_said(server, path, says, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(VideoError, match=says), fetched(f"{server}/{path}", FetchLimits(megabytes=1, seconds=2)):
        pytest.fail("was fetched")
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []


def test_servers_and_addresses_that_do_not_exist():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with (
            pytest.raises(VideoError, match=r"127\.0\.0\.1 cannot be reached, or broke off \(Connection refused\)"),
            fetched(f"http://127.0.0.1:{port}/film.mp4"),
        ):
            pytest.fail("was fetched")
    with pytest.raises(VideoError, match="no known kind of address"), fetched("nosuch://film.mp4"):
        pytest.fail("was fetched")
    with pytest.raises(VideoError, match=r"memory://none/film\.mp4: no such file"), fetched("memory://none/film.mp4"):
        pytest.fail("was fetched")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="s3fs"), fetched("s3://bucket/film.mp4"):
            pytest.fail("was fetched")


def test_stores_of_fsspec_have_the_limits_too():
    fsspec.filesystem("memory").pipe("/limits/film.mp4", bytes(2_000_000))
    with fetched("memory://limits/film.mp4", FetchLimits(megabytes=2)) as copy:
        assert copy.stat().st_size == 2_000_000
    with (
        pytest.raises(VideoError, match=r"larger than 1\.9 MB"),
        fetched("memory://limits/film.mp4", FetchLimits(megabytes=1.9)),
    ):
        pytest.fail("was fetched")
    with pytest.raises(ValueError, match="must be above 0"):
        FetchLimits(megabytes=0)
