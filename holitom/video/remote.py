"""Videos at remote addresses: fetched as local copies, within limits of size and time."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import fsspec

from holitom.video.errors import VideoError

CHUNK = 1 << 20  # bytes that are copied at a time
SILENCE = 30.0  # seconds that a web server may stay silent


@dataclass(frozen=True)
class FetchLimits:
    """How much of a remote file is fetched before it is given up.

    Args:
        megabytes: the largest file, in MB (10^6 bytes).
        seconds: the longest time for one file.
    """

    megabytes: float = 4000.0
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if not (self.megabytes > 0 and self.seconds > 0):
            raise ValueError(f"limits of a download must be above 0, got {self.megabytes} MB and {self.seconds} s")


LIMITS = FetchLimits()
"""The default: 4 GB and 300 s."""


@contextmanager
def fetched(address: str, limits: FetchLimits = LIMITS) -> Iterator[Path]:
    """The path of a local file: of this machine as it is, of a remote store as a copy that is deleted afterwards.

    Args:
        address: a path, an http(s) URL, or an address that fsspec knows, as s3://bucket/film.mp4.
        limits: of the download.

    Raises:
        VideoError: when a remote file cannot be fetched within the limits; says which status or limit stood against it.
        ImportError: when fsspec needs another package for this kind of address; names it.
    """
    if "://" not in address:
        yield Path(address)
        return
    with TemporaryDirectory(prefix="holitom-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / f"video{PurePosixPath(urlsplit(address).path).suffix[:16]}"
        fetch = _from_web if address.lower().startswith(("http://", "https://")) else _from_store
        _within(limits.seconds, address, lambda: fetch(address, copy, _Meter(address, limits)))
        yield copy


class _Meter(fsspec.callbacks.Callback):  # type: ignore[misc] # fsspec has no types
    """Counts what was fetched, and raises where that is beyond the limits."""

    def __init__(self, address: str, limits: FetchLimits) -> None:
        super().__init__()
        self.address, self.limits = address, limits
        self.count, self.end = 0, time.monotonic() + limits.seconds

    def set_size(self, size: int | None) -> None:
        """Told how large the file is, where that is known."""
        if size is not None and size > self.limits.megabytes * 1e6:
            raise VideoError(
                self.address,
                f"larger than {self.limits.megabytes:g} MB, the limit of a download",
                "Raise the limit, or give a local file.",
            )

    def relative_update(self, inc: int = 1) -> None:
        """Told how many bytes have come."""
        self.count += inc
        self.set_size(self.count)
        if time.monotonic() > self.end:
            raise _too_slow(self.address, self.limits.seconds)


def _within(seconds: float, address: str, work: Callable[[], None]) -> None:
    """Runs ``work``, which ends itself soon after so many seconds, in a thread that need not be waited for longer."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="holitom fetch")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise _too_slow(address, seconds)
    if failed:
        raise failed[0]


def _too_slow(address: str, seconds: float) -> VideoError:
    return VideoError(
        address, f"not fetched within {seconds:g} s, the limit of a download", "Raise the limit, or give a local file."
    )


def _from_web(address: str, copy: Path, meter: _Meter) -> None:
    host = urlsplit(address).hostname
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "holitom"})
        with (
            urllib.request.urlopen(request, timeout=min(SILENCE, meter.limits.seconds)) as answer,
            copy.open("wb") as file,
        ):
            length = answer.headers.get("Content-Length", "")
            meter.set_size(int(length) if length.isdigit() else None)
            while piece := answer.read(CHUNK):
                file.write(piece)
                meter.relative_update(len(piece))
            if length.isdigit() and meter.count < int(length):
                raise VideoError(address, f"{host} ended after {meter.count} of {length} bytes", "Try again.")
    except urllib.error.HTTPError as error:
        problem = f"{host} answered with status {error.code} ({error.reason})"
        raise VideoError(address, problem, "Check the address.") from error
    except (OSError, http.client.HTTPException) as error:  # URLError among them
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise VideoError(address, f"{host} cannot be reached, or broke off ({reason})", "Try again later.") from error
    except ValueError as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(address, f"no valid address ({error})", "Check the address.") from error


def _from_store(address: str, copy: Path, meter: _Meter) -> None:
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ValueError as error:
        raise VideoError(address, f"no known kind of address ({error})", "Check the address.") from error
    try:
        system.get_file(path, str(copy), callback=meter)
    except FileNotFoundError as error:
        raise VideoError(address, "no such file", "Check the address.") from error
    except OSError as error:
        raise VideoError(address, f"cannot be fetched ({error.strerror or error})", "Check the address.") from error
