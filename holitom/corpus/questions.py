"""What is asked about every video."""

from __future__ import annotations

from holitom.corpus.tables import TABLES, column_of, json_lines, suffix_of, text_of


def list_questions(texts: list[str], file: str | None) -> tuple[str, ...]:
    """The questions of a run, in order.

    Args:
        texts: given one by one.
        file: with one question a line, or a table (.csv, .tsv, .jsonl, .parquet) with a column ``question``.

    Raises:
        ValueError: when there is none, one is empty or no text, or one comes twice.
        OSError: when the file cannot be read.
    """
    found = [text.strip() for text in texts]
    if file is not None and suffix_of(file) in TABLES:
        found += [text.strip() for text in column_of(file, None, ("question", "text", "prompt"))]
    elif file is not None:
        found += [line.strip() for line in text_of(file).split("\n") if line.strip()]
    if not found:
        raise ValueError("there is nothing to ask: give --question TEXT, or --questions FILE with one question a line")
    for text in found:
        check_question(text)
    twice = sorted({text for text in found if found.count(text) > 1})
    if twice:
        raise ValueError(f"asked more than once: {'; '.join(map(repr, twice))}")
    return tuple(found)


def questions_by_video(file: str, videos: dict[str, str]) -> list[tuple[str, str, str]]:
    """(name, path, question) from JSON lines with ``video`` and ``question``, as ``holitom clips`` writes them.

    Args:
        file: with one question a line.
        videos: paths by name.

    Raises:
        ValueError: naming the row that has neither, or a video that is not among these.
    """
    found = []
    for number, row in enumerate(json_lines(file)[1], 1):
        if not {"video", "question"} <= set(row):
            raise ValueError(f"{file}, row {number}: a row holds 'video' and 'question', got {sorted(row)}")
        if row["video"] not in videos:
            raise ValueError(f"{file}, row {number}: {row['video']!r} is none of the videos")
        found.append((row["video"], videos[row["video"]], row["question"]))
    return found


def check_question(text: str) -> None:
    """Refuses what cannot be asked.

    Raises:
        ValueError: when it is empty or holds bytes that are no UTF-8.
    """
    if not text.strip():
        raise ValueError("the question is empty: there is nothing to ask")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the question {text!r} is no UTF-8 text: check the encoding of your terminal") from error
