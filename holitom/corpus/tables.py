"""Reading one column of a small table: CSV, TSV, JSON lines or Parquet, of this machine or of a remote store."""

from __future__ import annotations

import csv
import io
import json
from pathlib import PurePosixPath
from typing import Any

import fsspec

TABLES = {".csv", ".tsv", ".jsonl", ".parquet"}


def suffix_of(address: str) -> str:
    """The ending of a path or an address, in small letters."""
    return PurePosixPath(address.partition("?")[0]).suffix.lower()


def column_of(address: str, wanted: str | None, usual: tuple[str, ...]) -> list[str]:
    """The values of one column.

    Args:
        address: of the table. wanted: its column; None: the first of ``usual`` that it has, or its only one.

    Raises:
        ValueError: when there is no such column, or a value in it is no text; names the row.
        OSError: when the table cannot be read.
    """
    with fsspec.open(address, "rb") as file:
        columns, rows = _read(address, file.read())
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


def _read(address: str, data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    suffix = suffix_of(address)
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(data))
        return list(table.column_names), table.to_pylist()
    text = data.decode("utf-8-sig")
    if suffix == ".jsonl":
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
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
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
    return list(reader.fieldnames or ()), list(reader)
