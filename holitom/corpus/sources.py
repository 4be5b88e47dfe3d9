"""Which videos a run is about: a folder, a pattern, a table of paths, or a single file; here or in a remote store."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from holitom.corpus.tables import TABLES, column_of, local_path, suffix_of

logger = logging.getLogger(__name__)

VIDEOS = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif",
}  # fmt: skip
"""Endings by which a file is taken for a video without a look into it; a damaged one becomes a row with its error."""
PATHS = ("path", "video", "file", "url", "uri")
NAMED = 5  # files that a message names


@dataclass(frozen=True)
class Item:
    """One video.

    Args:
        path: as the output names it.
        address: under which it is found.
    """

    path: str
    address: str


def list_videos(source: str, column: str | None = None) -> list[Item]:
    """The videos of a source, each once. What a folder holds beside videos is left out, and logged.

    Args:
        source: a folder (every file in it and below that is a video by its content, by name; in a remote store, by its
            ending), a pattern with ``*``, a table (.csv, .tsv, .jsonl, .parquet) with a column of paths or addresses,
            or one video. Paths in a table are relative to its folder.
        column: the table's column; None: the first of path, video, file, url, uri.

    Raises:
        ValueError: when there is no such source, or no video in it.
        OSError: when a remote store cannot be read.
    """
    here = None if "://" in source else local_path(source)
    exists = here is not None and here.exists()
    if suffix_of(source) in TABLES and (here.is_file() if here is not None else not _pattern(source)):
        items = [Item(_printable(path), _beside(source, path)) for path in column_of(source, column, PATHS)]
    elif here is None:
        items = _remote(source)
    elif exists or _pattern(source):
        items = _local(source, here)
    else:
        raise ValueError(f"there is no {_printable(source)}: give a folder, a pattern in quotes, a table, or a video")
    if not items:
        raise ValueError(f"{_printable(source)} holds no video")
    found: dict[str, Item] = {}
    for item in items:
        known = found.get(item.path)
        if known is not None and known.address != item.address:  # a name that looks like another one's bytes
            item = Item(f"{item.path} (another)", item.address)
        found[item.path] = item
    if len(found) < len(items):
        logger.warning("%s names %d videos more than once; each is asked once", source, len(items) - len(found))
    return list(found.values())


def _local(source: str, path: Path) -> list[Item]:
    if path.is_dir():
        files = sorted(_files(path))
        videos = [each for each in files if each.suffix.lower() in VIDEOS or _opens(each)]
        _log_left_out(source, map(str, set(files) - set(videos)))
        return [Item(_printable(str(each)), str(each)) for each in videos]
    if path.exists():
        return [Item(_printable(str(path)), str(path))]
    names = sorted(fsspec.filesystem("file").glob(str(path)))
    return [Item(_printable(name), name) for name in names if not Path(name).is_dir()]


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder and below; folders that cannot be read are logged."""

    def report(error: OSError) -> None:
        logger.warning("%s cannot be read (%s): its videos are left out", _printable(error.filename), error.strerror)

    for root, _, names in os.walk(folder, onerror=report):
        yield from (path for path in (Path(root, name) for name in names) if path.is_file())


def _opens(path: Path) -> bool:
    """Whether a file whose ending says nothing begins like something that :func:`holitom.video.read_video` reads."""
    from holitom.video.container import Reader
    from holitom.video.errors import VideoError
    from holitom.video.images import is_picture

    try:
        if path.stat().st_size == 0:
            return False
        if is_picture(path):
            return True
        with Reader(path, str(path)):
            return True
    except (VideoError, OSError):
        return False


def _remote(source: str) -> list[Item]:
    try:
        system, path = fsspec.core.url_to_fs(source)
    except ImportError as error:
        if not source.lower().startswith(("http://", "https://")):
            raise
        if "*" not in source and suffix_of(source):  # one file is fetched without a further package
            return [Item(source, source)]
        raise ImportError(
            f"{source}: listing a folder of a web server needs aiohttp and requests: pip install aiohttp requests"
        ) from error
    if _pattern(path, web=source.lower().startswith(("http://", "https://"))):
        names = system.glob(path)
    elif system.isdir(path):
        names = [name for name in system.find(path) if suffix_of(str(name)) in VIDEOS]
        _log_left_out(source, set(system.find(path)) - set(names))
    else:
        names = [path]
    addresses = (str(name if "://" in name else system.unstrip_protocol(name)) for name in sorted(names))
    return [Item(address, address) for address in addresses]


def _log_left_out(source: str, names: Iterable[str]) -> None:
    left = sorted(map(_printable, names))
    if left:
        shown = ", ".join(left[:NAMED]) + (", ..." if len(left) > NAMED else "")
        logger.warning("%s: %d files that are no videos are left out: %s", _printable(source), len(left), shown)


def _pattern(source: str, web: bool = False) -> bool:
    """Whether a name asks for several files; in a web address ``?`` and ``[`` may stand for themselves."""
    return any(sign in source for sign in ("*" if web else "*?["))


def _beside(table: str, path: str) -> str:
    """Where a path of a table lies."""
    if "://" in path:
        return path
    if "://" in table:
        return f"{table.rpartition('/')[0]}/{path}"
    return str(local_path(table).parent / local_path(path))  # an absolute path stands for itself


def _printable(path: str) -> str:
    """A path as text that every file format can hold: bytes that are no UTF-8 as ``\\xff``."""
    if not any("\ud800" <= sign <= "\udfff" for sign in path):
        return path
    signs = (
        f"\\x{ord(sign) - 0xDC00:02x}" if "\udc80" <= sign <= "\udcff" else sign for sign in path.replace("\\", "\\\\")
    )
    return "".join(signs).encode("utf-8", "backslashreplace").decode("utf-8")
