"""What a run has done so far, and what the same run would have cost uncompressed: sums over its rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from holitom.corpus.rows import Row

SUMMED = (
    "prompt_tokens", "visual_tokens_in", "visual_tokens_out", "seconds_decode", "seconds_preprocess", "seconds_prefix",
    "seconds_answer", "prefill_flops", "full_prefill_flops", "paper_flops", "full_paper_flops", "kv_bytes",
    "full_kv_bytes",
)  # fmt: skip


@dataclass
class Totals:
    """Sums over rows.

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
