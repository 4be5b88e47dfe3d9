"""Parquet needs pyarrow, the largest package after torch, which only corpora use."""

from __future__ import annotations


def require_parquet() -> None:
    """Checks that Parquet files can be read and written.

    Raises:
        ImportError: without pyarrow, which the extra ``holitom[corpora]`` installs.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'holitom[corpora]', or use a .jsonl file") from error
