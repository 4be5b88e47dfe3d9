"""Time and memory of methods, measured side by side on one model."""

from holitom.bench.measure import STAGES, Run, encode, measure
from holitom.bench.presets import PRESETS, build
from holitom.bench.results import Report, load, resume
from holitom.bench.run import bench, bench_compiled, fresh_report
from holitom.bench.workload import Workload, from_pipeline, from_preset

__all__ = [
    "PRESETS", "STAGES", "Report", "Run", "Workload", "bench", "bench_compiled", "build", "encode", "fresh_report",
    "from_pipeline", "from_preset", "load", "measure", "resume",
]  # fmt: skip
