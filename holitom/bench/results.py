"""What a benchmark found, as a value and as a JSON file that a killed run is continued from."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holitom.bench.measure import NEXT, STAGES
from holitom.cost import Sample, ratios
from holitom.resume import check_settings, write_json

BASELINE = "uncompressed"
FORMAT = 1

Figures = dict[str, "float | None"]


@dataclass
class Report:
    """A benchmark, finished or not.

    Attributes:
        settings: what was asked for; what must be the same for rounds to belong together.
        machine: where it ran.
        model: what ran.
        methods: by label, what does not change from round to round: settings, tokens, FLOPs.
        rounds: for each finished round the figures of each method, see :meth:`holitom.bench.measure.Run.figures`.
        failures: by label, why a method has no (more) figures.
        compiled: by label, what :func:`holitom.bench.measure.measure_compiled` found.
        notes: sentences a reader must know.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    model: dict[str, Any]
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: list[dict[str, Figures]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    compiled: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def samples(self, stage: str) -> dict[str, Sample]:
        """A stage's seconds by method, over the rounds that have them."""
        found = {}
        for label in self.methods:
            seconds = tuple(value for each in self.rounds if (value := each.get(label, {}).get(stage)) is not None)
            if seconds:
                found[label] = Sample(seconds)
        return found

    def results(self) -> dict[str, dict[str, Any]]:
        """By method: the samples of each stage, how many times faster than uncompressed each is (round by round),
        decode throughput, and bytes (the largest of all rounds)."""
        found: dict[str, dict[str, Any]] = {
            label: {"seconds": {}, "speedup": {}}
            for label in self.methods
            if any(label in each for each in self.rounds)
        }
        for stage in STAGES:
            samples = self.samples(stage)
            complete = {label: each for label, each in samples.items() if len(each.seconds) == len(self.rounds)}
            speedups = ratios(complete, BASELINE) if BASELINE in complete else {}
            for label, sample in samples.items():
                found[label]["seconds"][stage] = sample.as_dict()
                if label in speedups and sample.median:
                    found[label]["speedup"][stage] = speedups[label].as_dict()
        for label, entry in found.items():
            step = entry["seconds"].get(NEXT)
            if step and step["median"]:
                entry["tokens_per_second"] = self.settings["batch"] / step["median"]
            if label in self.compiled:
                entry["compiled"] = self._compiled(label, step)
            for name in ("kv_cache_bytes", "peak_bytes", "peak_above"):
                values = [value for each in self.rounds if (value := each.get(label, {}).get(name)) is not None]
                entry[name] = max(values) if values else None
        return found

    def _compiled(self, label: str, eager: dict[str, Any] | None) -> dict[str, Any]:
        own = Sample(tuple(self.compiled[label]["seconds"]))
        found: dict[str, Any] = {**own.as_dict(), "tokens_per_second": self.settings["batch"] / own.median}
        if eager:
            found["over_eager"] = eager["median"] / own.median
        if BASELINE in self.compiled:
            found["speedup"] = statistics.median(self.compiled[BASELINE]["seconds"]) / own.median
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything, the results worked out, ready for JSON."""
        return {"format": FORMAT, **asdict(self), "results": self.results()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The inverse of :meth:`as_dict`.

        Raises:
            ValueError: when it is not of this format.
        """
        if values.get("format") != FORMAT:
            raise ValueError(f"this is no benchmark result of format {FORMAT}, but {values.get('format')!r}")
        return cls(**{name: value for name, value in values.items() if name not in ("format", "results")})

    def save(self, path: Path) -> None:
        """Write the file; a kill at any moment leaves the old one or the new one."""
        write_json(path, self.as_dict())


def load(path: Path) -> Report:
    """The report in a file.

    Raises:
        ValueError: when the file holds something else.
    """
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is no benchmark result: {error}") from error


def resume(path: Path, fresh: Report) -> Report:
    """The unfinished or finished report in a file, to go on with; ``fresh`` where there is none.

    Raises:
        ValueError: when the file is of a run with other settings, naming the difference.
    """
    if not path.exists():
        return fresh
    found = load(path)
    check_settings(path, {**found.settings, "repeats": fresh.settings["repeats"]}, fresh.settings)
    found.settings = fresh.settings
    return found
