"""How rows are written: Parquet or JSON lines, each file written whole under another name and then renamed."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from holitom.corpus.rows import COLUMNS, TEXT, Row
from holitom.extras import PARQUET, require
from holitom.resume import whole_file

SETTINGS = b"holitom"
CHUNK = 65_536  # rows that are held at a time


class Format(ABC):
    """One kind of output file."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """The rows of a file, a chunk at a time."""

    @abstractmethod
    def settings(self, path: Path) -> dict[str, Any] | None:
        """The settings that are written in the file itself; None where the format has no place for them."""

    @abstractmethod
    def write(self, path: Path, rows: Iterable[Row], settings: dict[str, Any]) -> None:
        """Writes a whole file."""

    def replace(
        self,
        path: Path,
        rows: Iterable[Row],
        settings: dict[str, Any],
        keep: Callable[[Row], bool] = lambda _: True,
    ) -> None:
        """Adds rows to the file at ``path``, which is the old one or the new one at any moment, and never half of it.

        Args:
            path: of the file, which may be missing.
            rows: to add.
            settings: of the run.
            keep: which of the rows that are there stay.

        Raises:
            OSError: when the disk is full; the old file stays.
        """
        old = filter(keep, self.read(path)) if path.exists() else ()
        with whole_file(path) as new:
            self.write(new, chain(old, rows), settings)
        sync_folder(path.parent)


class Jsonl(Format):
    """One JSON object a line."""

    def read(self, path: Path) -> Iterator[Row]:
        """See :meth:`Format.read`."""
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = Row.of(json.loads(line))
                except (json.JSONDecodeError, TypeError, KeyError) as error:
                    raise ValueError(
                        f"{path}, line {number} is no row of this command ({error}): give another --out, or repair the "
                        "file"
                    ) from error
                yield row

    def settings(self, path: Path) -> dict[str, Any] | None:
        """See :meth:`Format.settings`."""
        return None

    def write(self, path: Path, rows: Iterable[Row], settings: dict[str, Any]) -> None:
        """See :meth:`Format.write`."""
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row.as_dict(), ensure_ascii=False) + "\n")


class Parquet(Format):
    """A table with one column for each field of :class:`Row`, and the settings in its metadata."""

    def read(self, path: Path) -> Iterator[Row]:
        """See :meth:`Format.read`."""
        with _parquet(path) as file:
            for batch in file.iter_batches(CHUNK):
                yield from map(Row.of, batch.to_pylist())

    def settings(self, path: Path) -> dict[str, Any] | None:
        """See :meth:`Format.settings`."""
        with _parquet(path) as file:
            written = (file.schema_arrow.metadata or {}).get(SETTINGS)
        return None if written is None else json.loads(written)

    def write(self, path: Path, rows: Iterable[Row], settings: dict[str, Any]) -> None:
        """See :meth:`Format.write`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, _arrow_type(name)) for name in COLUMNS], {SETTINGS: json.dumps(settings).encode()})
        left = (row.as_dict() for row in rows)
        with pq.ParquetWriter(path, schema) as writer:
            while held := list(islice(left, CHUNK)):
                writer.write_table(pa.Table.from_pylist(held, schema))


def format_of(path: Path) -> Format:
    """The format that a name asks for.

    Raises:
        ValueError: for any other than .parquet and .jsonl.
        ImportError: for .parquet without pyarrow.
    """
    known: dict[str, type[Format]] = {".parquet": Parquet, ".jsonl": Jsonl}
    if path.suffix.lower() not in known:
        raise ValueError(f"--out {path}: the name must end with .parquet or .jsonl")
    if path.suffix.lower() == ".parquet":
        require(*PARQUET)
    return known[path.suffix.lower()]()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    if name in TEXT:
        return pa.string()
    return pa.float64() if name.startswith("seconds") else pa.int64()


def _parquet(path: Path) -> Any:
    """An opened file.

    Raises:
        ValueError: when it is no Parquet file, or one of something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file ({error}): give another --out, or --restart") from error
    if not {"path", "question"} <= set(file.schema_arrow.names):
        raise ValueError(f"{path} is a Parquet file of something else: give another --out, or --restart")
    return file
