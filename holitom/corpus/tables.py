"""Reading one column of a small table: CSV, TSV, JSON lines or Parquet, of this machine or of a remote store."""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from holitom.extras import PARQUET, require

TABLES = {".csv", ".tsv", ".jsonl", ".parquet"}


def suffix_of(address: str) -> str:
    """The ending of a path or an address, in small letters."""
    return PurePosixPath(address.partition("?")[0] if "://" in address else address).suffix.lower()


def local_path(name: str) -> Path:
    """The path that a user means: as it is where that exists, else with ``~`` replaced by a home folder."""
    path = Path(name)
    try:
        return path if path.exists() else path.expanduser()
    except RuntimeError:  # ~name, and nobody has that name
        return path


def bytes_of(address: str) -> bytes:
    """The content of a file, here or in a remote store.

    Raises:
        OSError: when it cannot be read.
    """
    if "://" not in address:
        return local_path(address).read_bytes()
    system, path = fsspec.core.url_to_fs(address)
    data: bytes = system.cat_file(path)
    return data


def text_of(address: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, with line ends as ``\\n``.

    Raises:
        ValueError: when it is neither; names the file.
        OSError: when it cannot be read.
    """
    data = bytes_of(address)
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if data.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{address} is neither UTF-8 nor UTF-16 text (at byte {error.start}): save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(f"{address} is no text file, or UTF-16 without its mark: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def column_of(address: str, wanted: str | None, usual: tuple[str, ...]) -> list[str]:
    """The values of one column.

    Args:
        address: of the table.
        wanted: its column; None: the first of ``usual`` that it has, or its only one.
        usual: names that such a column usually has.

    Raises:
        ValueError: when there is no such column, or a value in it is no text; names the file and the row.
        OSError: when the table cannot be read.
    """
    columns, rows = _read(address, (wanted,) if wanted else usual)
    name = wanted
    if name is None:
        name = next((each for each in usual if each in columns), columns[0] if len(columns) == 1 else None)
    if name is None or name not in columns:
        asked = repr(wanted) if wanted else " or ".join(map(repr, usual))
        raise ValueError(f"{address} has no column {asked}: it has {', '.join(map(repr, columns)) or 'none'}")
    values = []
    for number, row in enumerate(rows, 1):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{address}, row {number}: column {name!r} must hold text, got {value!r}")
        values.append(value)
    return values


def _read(address: str, asked: tuple[str, ...]) -> tuple[list[str], list[dict[str, Any]]]:
    suffix = suffix_of(address)
    if suffix == ".parquet":
        return _parquet(address)
    return json_lines(address) if suffix == ".jsonl" else _separated(address, text_of(address), suffix, asked)


def _parquet(address: str) -> tuple[list[str], list[dict[str, Any]]]:
    require(*PARQUET)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(bytes_of(address)))
    except pa.ArrowException as error:
        raise ValueError(f"{address} is no Parquet file: {error}") from error
    return list(table.column_names), table.to_pylist()


def json_lines(address: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The names in a file of JSON lines, and its rows.

    Raises:
        ValueError: naming the line that is no object.
        OSError: when it cannot be read.
    """
    rows = []
    for number, line in enumerate(text_of(address).split("\n"), 1):  # not splitlines(): a text may hold U+2028
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{address}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{address}, line {number} must be an object with named columns, got {line[:60]}")
        rows.append(row)
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def _separated(address: str, text: str, suffix: str, asked: tuple[str, ...]) -> tuple[list[str], list[dict[str, Any]]]:
    """A table with one row a line. A .csv file may have commas, semicolons or tabs between its columns."""
    signs = ("\t",) if suffix == ".tsv" else (",", ";", "\t")
    headers = {sign: next(csv.reader([text.partition("\n")[0]], delimiter=sign), []) for sign in signs}
    sign = max(signs, key=lambda sign: (bool(set(asked) & set(headers[sign])), len(headers[sign])))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=sign)
    rows = []
    try:
        for number, row in enumerate(reader, 1):
            if None in row:
                raise ValueError(
                    f"{address}, row {number} has more columns than the first line: put values that hold {sign!r} "
                    "into quotes"
                )
            rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{address}, line {reader.line_num}: {error}") from error
    return list(reader.fieldnames or ()), rows
