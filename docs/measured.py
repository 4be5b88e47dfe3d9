"""Writes holitom/assets/measured.json, the figures from which `holitom recommend` answers, from benchmarks/results/.

python docs/measured.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from holitom.bench import PRESETS, load
from holitom.bench.measure import FIRST
from holitom.cli.recommend import MEASURED
from holitom.integrations.vllm import ServingConfig
from holitom.methods import Method, Uncompressed, parse
from holitom.report.bench import rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ACCURACY, TOWER, CORPUS = "testbed_all.json", "testbed_tower.json", "corpus.json"


def read(name: str) -> Any:
    """The JSON of a committed run."""
    return json.loads((RESULTS / name).read_text("utf-8"))


def run_of(name: str) -> str:
    """Where a reader finds the run."""
    return f"benchmarks/results/{name}"


def places(method: Method) -> list[str]:
    """Where a method works as it was measured."""
    found = ["transformers"]
    if "question" not in method.needs:  # a corpus may have several questions for a video
        found.append("corpus")
    try:
        served = ServingConfig(method).method
    except (ValueError, TypeError):
        return found
    return found + ["vllm"] * (served == method)


def complete(label: str) -> str:
    """A method's text with its retention, also where that is its default."""
    method = parse(label)
    if "retention" in label or not hasattr(method, "retention"):
        return label
    return f"{label}{',' if ':' in label else ':'}retention={method.retention:g}"


def rounded(value: Any) -> Any:
    """Shares and ratios to six digits behind the point, in whatever holds them."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def accuracy() -> Iterator[dict[str, Any]]:
    """Every method of the testbed's run over all of them."""
    report = read(ACCURACY)
    for label, entry in report["methods"].items():
        if isinstance(method := parse(label), Uncompressed):
            continue
        yield {
            "method": complete(label),
            "positions": method.positions,
            "places": places(method),
            "tokens": entry["tokens_entering"],
            "accuracy": entry["mean"],
            "difference": entry["difference"],
        }


def tower() -> Iterator[dict[str, Any]]:
    """Renewal in front of methods: what it computes, and what it changes."""
    default = parse("renewal")
    for row in read(TOWER)["rows"]:
        if row["behind"] and row["design"] and parse(row["design"]) == default:
            found = {"method": complete(row["behind"]), "tower_flops": row["tower"]}
            yield found | {"accuracy": row["mean"], "difference": row["gap"]}


def times() -> Iterator[dict[str, Any]]:
    """How many times as early the first token came, of every run with the whole vision tower in it."""
    for path in sorted(RESULTS.glob("*/results.json")):
        report = load(path)
        if report.settings.get("share_tower"):
            continue
        shape = {key: report.settings.get(key, 0) for key in ("frames", "batch", "static")}
        about = {"model": report.settings["model"], **shape, "device": report.machine["device_name"]}
        run = {"run": run_of(path.relative_to(RESULTS).as_posix()), "against": "uncompressed"}
        found = {row["method"]: row for row in rows(report)}
        whole = found["uncompressed"]["kv_cache_bytes"]
        for label, row in found.items():
            if not isinstance(parse(label), Uncompressed):
                gains = {"first": row["first_speedup"], "prefill": row["prefill_speedup"]}
                yield {"method": complete(label), **about, **gains, "kv_cache": row["kv_cache_bytes"] / whole, **run}
    for path in sorted(RESULTS.glob("*/tower.json")):
        report = json.loads(path.read_text("utf-8"))
        settings = report["settings"]
        for static, found in report["first token"].items():
            stock = found["rounds"]["uncompressed:stock=true"]
            for label, own in found["rounds"].items():
                if not isinstance(parse(label), Uncompressed):
                    yield {
                        "method": complete(label),
                        "model": settings["preset"],
                        "frames": settings["frames"],
                        "batch": 1,
                        "static": float(static),
                        "device": report["machine"]["device_name"],
                        "first": median(a[FIRST] / b[FIRST] for a, b in zip(stock, own, strict=True)),
                        "run": run_of(path.relative_to(RESULTS).as_posix()),
                        "against": "stock transformers",
                    }


def measured() -> dict[str, Any]:
    """What the file holds."""
    report, films = read(ACCURACY), read(CORPUS)["rates"]
    timed = list(times())
    shapes = {}
    for name in sorted({entry["model"] for entry in timed}):
        text = PRESETS[name].config["text_config"]
        shape = {key: text[key] for key in ("hidden_size", "num_hidden_layers")}
        shapes[name] = {"source": PRESETS[name].source, "model_type": PRESETS[name].config["model_type"], "text": shape}
    found = {
        "accuracy": {
            "model": report["model"],
            "clips": report["clips"],
            "split": report["split"],
            "run": run_of(ACCURACY),
            "uncompressed": report["methods"]["uncompressed"]["mean"],
            "methods": list(accuracy()),
        },
        "tower": {"clips": read(TOWER)["clips"], "run": run_of(TOWER), "methods": list(tower())},
        "times": timed,
        "shapes": shapes,
        "corpus": {**films["films"]["ratio"], **films["film"], "run": run_of(CORPUS)},
    }
    return rounded(found)  # type: ignore[no-any-return]


def main() -> None:
    """Rewrites the file."""
    text = json.dumps(measured(), indent=1)
    text = re.sub(r"\s+(?=[^\[\]{}]*[\]}])", " ", text)  # what holds nothing that holds something: on one line
    MEASURED.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
