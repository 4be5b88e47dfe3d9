"""Time and memory of every outer method, in units that a reader can check: reads of the features.

    python benchmarks/methods.py                 time, T=32, N=196, D=3584, one thread
    python benchmarks/methods.py --device cuda   the same on a GPU, and how often the host waits for it
    python benchmarks/methods.py --memory        peak memory beside the features, T=1024, bf16
    python benchmarks/methods.py --count         operations that a GPU would be given and waits for it, on a CPU

Each time covers choosing and merging: ``merge = method.merge_video(video)`` and ``merge.apply(features)``. It is set in
relation to one full read of the features (their sum), and to the same method in plain tensor operations as its
official code computes it (benchmarks/straightforward.py), measured in turn in one process. Needs holitom installed, or
the repository's root in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from clip import clip
from launches import Launches, counting, place
from straightforward import STRAIGHTFORWARD
from torch.profiler import ProfilerActivity, profile

from holitom.bench.machine import machine
from holitom.cost import interleave
from holitom.methods import DyCoke, Method, method_class, names, parse, spell
from holitom.resume import write_json
from holitom.tokens import VideoTokens


def settings(retention: float) -> list[Method]:
    """Every method with a stage before the LLM at one retention; DyCoke, which cannot get there, by its exact rule."""
    found = []
    for name in names():
        cls = method_class(name)
        if "before" in cls.stages and "retention" in cls.__dataclass_fields__:
            exact = ",exact=true" if cls is DyCoke and retention < 0.25 else ""
            found.append(parse(f"{name}:retention={retention}{exact}"))
    return found


def run(method: Method, video: VideoTokens) -> torch.Tensor:
    """What a session does with a video's features."""
    merge = method.merge_video(video)
    return merge.apply(video.features.flatten(0, 1))


def report_time(arguments: argparse.Namespace) -> None:
    """The table of times."""
    made = clip(arguments.frames, arguments.side, arguments.width, getattr(torch, arguments.dtype))
    tensors = {
        name: value.to(arguments.device) for name, value in vars(made).items() if isinstance(value, torch.Tensor)
    }
    video = VideoTokens(**tensors, grid=made.grid)
    where = "one thread" if arguments.device == "cpu" else torch.cuda.get_device_name()
    print(f"features {tuple(video.features.shape)} {arguments.dtype}, retention {arguments.retention}, {where}")
    print(f"{'method':<36}{'ms':>9}{'reads':>9}{'plain ops':>11}{'faster':>9}{'kept':>8}{'waits':>7}")
    found: dict[str, dict[str, float]] = {}
    for method in settings(arguments.retention):
        if arguments.only and method.name not in arguments.only:
            continue
        plain = STRAIGHTFORWARD.get(method.name) if arguments.device == "cpu" else None  # written for a CPU
        tasks: dict[str, Callable[[], object]] = {
            "read": video.features.sum,
            "ours": lambda method=method: run(method, video),
        }
        if plain is not None:
            tasks["plain"] = lambda plain=plain: plain(video, arguments.retention)
        samples = interleave(tasks, repeats=arguments.rounds, warmup=1, device=arguments.device)
        took = {name: sample.median for name, sample in samples.items()}
        reads = took["ours"] / took["read"]
        beside = f"{took['plain'] / took['read']:>11.1f}{took['plain'] / took['ours']:>8.1f}x" if plain else " " * 20
        waited = waits(lambda method=method: run(method, video)) if arguments.device != "cpu" else 0
        kept = run(method, video).shape[0]
        print(f"{spell(method):<36}{1e3 * took['ours']:>9.2f}{reads:>9.1f}{beside}{kept:>8}{waited:>7}", flush=True)
        found[spell(method)] = {"seconds": took["ours"], "read": took["read"], "kept": kept, "waits": waited}
        if arguments.json:
            where_ = machine(torch.device(arguments.device))
            write_json(arguments.json, {"shape": list(video.features.shape), "machine": where_, "methods": found})


def waits(task: Callable[[], object]) -> int:
    """How often the host waits for the GPU in a task."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchron" in str(each.message) for each in caught)


def report_count(arguments: argparse.Namespace) -> None:
    """The table of operations and waits."""
    made = clip(arguments.frames, arguments.side, arguments.width, torch.bfloat16)
    shape = tuple(made.features.shape)
    print(f"features {shape} bfloat16, retention {arguments.retention}, as on a GPU with Triton")
    print(f"{'method':<36}{'operations':>11}{'waits':>7}")
    for method in settings(arguments.retention):
        if not arguments.only or method.name in arguments.only:
            found = count(method, made)
            print(f"{spell(method):<36}{found.operations.total():>11}{found.waits.total():>7}", flush=True)


def count(method: Method, video: VideoTokens) -> Launches:
    """What a method's work on a video would ask of a GPU."""
    with counting() as found:
        tensors = {name: place(value) for name, value in vars(video).items() if isinstance(value, torch.Tensor)}
        run(method, dataclasses.replace(video, **tensors))
    return found


def peak_bytes(task: Callable[[], object]) -> int:
    """The most bytes that torch's allocator had handed out at a time during a task, beside those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        task()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    present = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        present += event.nbytes()
        highest = max(highest, present)
    return highest


def measure_memory(arguments: argparse.Namespace) -> None:
    """In a process of its own: the peak of one method beside what was there before it."""
    method = parse(arguments.measure)
    video = clip(arguments.frames, arguments.side, arguments.width, torch.bfloat16)
    size = video.features.numel() * video.features.element_size()
    start = time.perf_counter()
    out = run(method, video)
    took = time.perf_counter() - start
    peak = peak_bytes(lambda: run(method, video))
    print(f"{spell(method):<36}{peak / size:>9.2f}{took:>9.1f}{len(out):>9}", flush=True)


def report_memory(arguments: argparse.Namespace) -> None:
    """The table of peaks, each method in a process of its own."""
    shape = (arguments.frames, arguments.side**2, arguments.width)
    print(f"features {shape} bfloat16: {2 * shape[0] * shape[1] * shape[2] / 2**30:.2f} GiB")
    print(f"{'method':<36}{'peak':>9}{'seconds':>9}{'kept':>9}   (peak beside the features, in their own size)")
    for method in settings(arguments.retention):
        if arguments.only and method.name not in arguments.only:
            continue
        frames = arguments.frames
        if method.name in ("divprune", "forestprune", "unifiedst") and frames > 64:
            print(f"{method.name}: looks at every pair of tokens, hours here; measured on 64 frames:")
            frames = 64
        command = [sys.executable, __file__, "--measure", spell(method), "--frames", str(frames)]
        command += ["--side", str(arguments.side), "--width", str(arguments.width)]
        subprocess.run(command, check=True)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="T: 32 for time, 1024 for memory")
    parser.add_argument("--side", type=int, default=14, help="N = side * side")
    parser.add_argument("--width", type=int, default=3584, help="D")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu", help="for time")
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--json", type=Path, help="for time: written after each method")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.frames = arguments.frames or (1024 if arguments.memory else 32)
    if arguments.measure:
        measure_memory(arguments)
    elif arguments.count:
        report_count(arguments)
    elif arguments.memory:
        report_memory(arguments)
    else:
        report_time(arguments)


if __name__ == "__main__":
    main()
