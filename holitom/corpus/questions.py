"""What is asked about every video."""

from __future__ import annotations

import fsspec

from holitom.corpus.tables import TABLES, column_of, suffix_of


def list_questions(texts: list[str], file: str | None) -> tuple[str, ...]:
    """The questions of a run, in order.

    Args:
        texts: given one by one.
        file: with one question a line, or a table (.csv, .tsv, .jsonl, .parquet) with a column ``question``.

    Raises:
        ValueError: when there is none, or one comes twice.
    """
    found = [text.strip() for text in texts]
    if file is not None and suffix_of(file) in TABLES:
        found += [text.strip() for text in column_of(file, None, ("question", "text", "prompt"))]
    elif file is not None:
        with fsspec.open(file, "r", encoding="utf-8") as lines:
            found += [line.strip() for line in lines if line.strip()]
    if not all(found) or not found:
        raise ValueError("there is nothing to ask: give --question TEXT, or --questions FILE with one question a line")
    twice = sorted({text for text in found if found.count(text) > 1})
    if twice:
        raise ValueError(f"asked more than once: {'; '.join(map(repr, twice))}")
    return tuple(found)
