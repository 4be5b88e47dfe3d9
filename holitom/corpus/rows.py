"""The rows of the output: a question about a video, its answer, and what it took; and their sums."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """What became of one question about one video.

    What all questions of a video share (decoding, its prefix, the prefix's FLOPs and bytes) is written in the row of
    the first one and is 0 in the others, so that columns can be summed.

    Args:
        path: the video as the source names it; bytes that are no UTF-8 as ``\\xff``.
        question: what was asked.
        answer: None where there is an error.
        prompt_tokens: tokens of the full prompt, text and visual, before compression.
        visual_tokens_in: visual tokens of the full prompt.
        visual_tokens_out: visual tokens that entered the LLM.
        seconds_decode: in a worker, while the model was busy with other videos.
        seconds_preprocess: in a worker as well.
        seconds_prefix: vision tower, compression, and the LLM up to the question.
        seconds_answer: this row's share of its batch's.
        prefill_flops: FLOPs of the language model, as it ran; None where the model's shape is not known.
        full_prefill_flops: the same without compression.
        paper_flops: by the paper's formula, of visual tokens alone, as they ran.
        full_paper_flops: the same without compression.
        kv_bytes: bytes of the KV cache, as it ran; None where the model's shape is not known.
        full_kv_bytes: the same without compression.
        warning: what is wrong with a video of which only a part could be read.
        error: why there is no answer.
        model: that answered, or would have.
    """

    path: str
    question: str
    answer: str | None = None
    prompt_tokens: int | None = None
    visual_tokens_in: int | None = None
    visual_tokens_out: int | None = None
    seconds_decode: float | None = None
    seconds_preprocess: float | None = None
    seconds_prefix: float | None = None
    seconds_answer: float | None = None
    prefill_flops: int | None = None
    full_prefill_flops: int | None = None
    paper_flops: int | None = None
    full_paper_flops: int | None = None
    kv_bytes: int | None = None
    full_kv_bytes: int | None = None
    warning: str | None = None
    error: str | None = None
    model: str | None = None

    @property
    def key(self) -> Key:
        """What makes it one row and not another."""
        return self.path, self.question

    @property
    def entering(self) -> int | None:
        """Tokens that entered the LLM, text and visual."""
        if self.prompt_tokens is None or self.visual_tokens_in is None or self.visual_tokens_out is None:
            return None
        return self.prompt_tokens - self.visual_tokens_in + self.visual_tokens_out

    def as_dict(self) -> dict[str, Any]:
        """The columns, in order."""
        return asdict(self)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Row:
        """A row that was written, also by a version that knew more columns."""
        return cls(**{name: columns[name] for name in COLUMNS if name in columns})


COLUMNS = tuple(column.name for column in fields(Row))
TEXT = frozenset({"path", "question", "answer", "warning", "error", "model"})
"""The columns of text; those that begin with ``seconds`` are floating point, all others whole numbers."""
SUMMED = tuple(name for name in COLUMNS if name not in TEXT)
"""The columns that can be summed."""


@dataclass
class Totals:
    """What a run has done so far, and what the same run would have cost uncompressed: sums over its rows.

    Args:
        expected: rows of the whole run.

    Attributes:
        rows: those counted.
        errors: those with an error.
        warnings: those with a warning.
        uncounted: those with an answer and without FLOPs.
        sums: by column that can be summed.
    """

    expected: int
    rows: int = 0
    errors: int = 0
    warnings: int = 0
    uncounted: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0))
    _began: float = field(default_factory=time.monotonic)
    _before: int = 0

    def add(self, row: Row) -> None:
        """Counts a row."""
        self.rows += 1
        self.errors += row.error is not None
        self.warnings += row.warning is not None
        self.uncounted += row.error is None and row.prefill_flops is None
        for name in SUMMED:
            self.sums[name] += getattr(row, name) or 0

    def begin(self) -> None:
        """From here on rows are this run's own."""
        self._began, self._before = time.monotonic(), self.rows

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.rows - self._before) / max(1e-9, time.monotonic() - self._began)

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None before the first row."""
        return (self.expected - self.rows) / self.rate if self.rows > self._before else None

    @property
    def saved_tokens(self) -> int:
        """Visual tokens that did not enter the LLM."""
        return int(self.sums["visual_tokens_in"] - self.sums["visual_tokens_out"])

    def summary(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Ready for JSON: what was done, and beside it what it would have cost uncompressed, prefixes shared as well.

        FLOPs and bytes are None where a row's model has no known shape.
        """
        sums = self.sums
        known = not self.uncounted
        costs = {"prefill_flops": "prefill_flops", "paper_flops": "paper_flops", "kv_cache_bytes": "kv_bytes"}
        ran, full = (
            {
                "visual_tokens": int(sums[visual]),
                "prompt_tokens": int(sums["prompt_tokens"]) - saved,
                **{name: int(sums[before + column]) if known else None for name, column in costs.items()},
            }
            for visual, saved, before in (
                ("visual_tokens_out", self.saved_tokens, ""),
                ("visual_tokens_in", 0, "full_"),
            )
        )
        ratios = {
            name: part / whole if part is not None and (whole := full[name]) else None for name, part in ran.items()
        }
        stages = ("decode", "preprocess", "prefix", "answer")
        return {
            "settings": settings,
            "rows": self.rows,
            "expected_rows": self.expected,
            "errors": self.errors,
            "warnings": self.warnings,
            "this_run": {
                "rows": self.rows - self._before,
                "seconds": time.monotonic() - self._began,
                "rows_per_second": self.rate,
            },
            "seconds": {stage: sums[f"seconds_{stage}"] for stage in stages},
            "compressed": ran,
            "uncompressed": full,
            "ratio": ratios,
        }
