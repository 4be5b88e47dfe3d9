"""Which videos a run is about: a folder, a pattern, a table of paths, or a single file; here or in a remote store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec

from holitom.corpus.tables import TABLES, column_of, suffix_of

logger = logging.getLogger(__name__)

VIDEOS = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif",
}  # fmt: skip
PATHS = ("path", "video", "file", "url", "uri")


@dataclass(frozen=True)
class Item:
    """One video: its ``path`` as the output names it, and the ``address`` under which it is found."""

    path: str
    address: str


def list_videos(source: str, column: str | None = None) -> list[Item]:
    """The videos of a source, each once.

    Args:
        source: a folder (all videos in it and below, by name), a pattern with ``*``, a table (.csv, .tsv, .jsonl,
            .parquet) with a column of paths or addresses, or one video. Paths in a table are relative to its folder.
        column: the table's column; None: the first of path, video, file, url, uri.

    Raises:
        ValueError: when there is no such source, or no video in it.
        OSError: when a remote store cannot be read.
    """
    remote = "://" in source
    if suffix_of(source) in TABLES and not _magic(source):
        items = [Item(path, _beside(source, path)) for path in column_of(source, column, PATHS)]
    elif remote:
        items = _remote(source)
    else:
        items = _local(source)
    if not items:
        raise ValueError(f"{source} holds no video: looked for {', '.join(sorted(VIDEOS))}")
    found = {item.path: item for item in items}
    if len(found) < len(items):
        logger.warning("%s names %d videos more than once; each is asked once", source, len(items) - len(found))
    return list(found.values())


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """The path of a local file: of this machine as it is, of a remote store as a copy that is deleted afterwards.

    Raises:
        OSError, ValueError, ImportError: when a remote file cannot be fetched.
    """
    if "://" not in address:
        yield Path(address)
        return
    with TemporaryDirectory(prefix="holitom-") as folder:
        system, path = fsspec.core.url_to_fs(address)
        copy = Path(folder) / (Path(path).name or "video")
        system.get_file(path, str(copy))
        yield copy


def _local(source: str) -> list[Item]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in VIDEOS and each.is_file())
        return [Item(str(each), str(each)) for each in files]
    if path.exists():
        return [Item(str(path), str(path))]
    if not _magic(source):
        raise ValueError(f"there is no {source}: give a folder, a pattern in quotes, a table of paths, or a video")
    system = fsspec.filesystem("file")
    return [Item(name, name) for name in sorted(system.glob(str(path))) if not Path(name).is_dir()]


def _remote(source: str) -> list[Item]:
    system, path = fsspec.core.url_to_fs(source)
    if _magic(path):
        names = system.glob(path)
    elif system.isdir(path):
        names = [name for name in system.find(path) if suffix_of(name) in VIDEOS]
    else:
        names = [path]
    return [Item(address, address) for address in (system.unstrip_protocol(name) for name in sorted(names))]


def _magic(source: str) -> bool:
    return any(sign in source for sign in "*?[")


def _beside(table: str, path: str) -> str:
    """Where a path of a table lies."""
    if "://" in path or Path(path).expanduser().is_absolute():
        return str(Path(path).expanduser()) if "://" not in path else path
    if "://" in table:
        return f"{table.rpartition('/')[0]}/{path}"
    return str(Path(table).expanduser().parent / path)
