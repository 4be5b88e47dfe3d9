"""How long HoliTom's own work takes, in units of one full read of the features.

    python benchmarks/compress.py [--device cuda] [--json FILE]

One thread, float32, T=32, N=196, D=3584, retention 0.1 unless said otherwise. Ratios to a baseline of the same run, by
the median of interleaved repetitions; the clip has scenes, so that a part of the positions is static. Processor time
says more where others use the machine too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from launches import counting, place

from holitom import HoliTom, SpanStates, VideoTokens
from holitom.ops import segment
from holitom.ops.similarity import row_chunk


def clip(frames: int, positions: int, width: int, device: str, scenes: int = 6, static: float = 0.6) -> VideoTokens:
    """Features (T, N, D) of a clip with scene cuts, in which about a share ``static`` of each scene stays the same."""
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(frames, positions, width)
    cuts = [round(frames * scene / scenes) for scene in range(scenes + 1)]
    for first, last in pairwise(cuts):
        background = torch.randn(positions, width, generator=generator)
        still = torch.rand(positions, generator=generator) < static
        for frame in range(first, last):
            noise = torch.randn(positions, width, generator=generator)
            features[frame] = torch.where(still[:, None], background + 0.3 * noise, noise)
    side = int(positions**0.5)
    return VideoTokens(
        features.to(device), (side, positions // side), torch.rand(frames, positions, generator=generator).to(device)
    )


def interleaved(work: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Median seconds of each by the clock and of the processor, run in turns (A B C A B C ...) after two to warm up."""
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    times: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in work} for clock in clocks}
    for turn in range(repeats + 2):
        for name, run in work.items():
            if device != "cpu":
                torch.cuda.synchronize()
            start = {clock: read() for clock, read in clocks.items()}
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn > 1:
                for clock, read in clocks.items():
                    times[clock][name].append(read() - start[clock])
    return {clock: {name: statistics.median(values) for name, values in each.items()} for clock, each in times.items()}


def without_the_matrix() -> list[dict[str, float]]:
    """What a kernel could save of the inner stage that writes no similarities of dropped and kept tokens down.

    Counted, for states 3,584 wide: products in float32 at 60 * 10^12 a second, memory at 3.35 * 10^12 bytes (an H100).
    """
    found = []
    for frames, retention in ((32, 0.1), (64, 0.25), (64, 0.5), (128, 0.5)):
        tokens = round(frames * 196 * retention)
        kept = round(tokens / 2)
        hidden, attention = place(torch.randn(tokens, 8)), place(torch.rand(tokens))
        span = SpanStates(hidden, attention, 18, 28, place(torch.arange(tokens)), frames, (14, 14), tokens)
        with counting() as launches:
            HoliTom().merge_span(span)
        matrix, at_a_time = 4 * kept * (tokens - kept), 4 * kept * row_chunk(kept, hidden.device)
        found.append(
            {
                "frames": frames,
                "retention": retention,
                "tokens": tokens,
                "MiB of similarities": matrix / 2**20,
                "of which at a time": min(matrix, at_a_time) / 2**20,
                "operations": launches.operations.total(),
                "waits": launches.waits.total(),
                "milliseconds of products": 2 * kept * (tokens - kept) * 3584 / 60e12 * 1e3,
                "milliseconds to write and read similarities": 2 * matrix / 3.35e12 * 1e3,
            }
        )
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = options.device
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
    }

    video, method = clip(32, 196, 3584, device), HoliTom(retention=0.1)
    rows = video.features.flatten(0, 1)

    def outer() -> torch.Tensor:
        return method.merge_video(video).apply(rows)

    times = interleaved({"read": lambda: video.features.sum(), "outer": outer}, options.repeats, device)
    results["outer"] = {
        "tokens in": len(rows),
        "tokens out": len(outer()),
        "segments": len(method.segment(video).spans),
        "milliseconds": times["clock"]["outer"] * 1e3,
        "times one read of the features": times["clock"]["outer"] / times["clock"]["read"],
        "the same by processor time": times["processor"]["outer"] / times["processor"]["read"],
    }
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outer()
        torch.cuda.set_sync_debug_mode("default")
        results["outer"]["synchronisations"] = len(caught)  # type: ignore[index]

    hidden, attention = torch.randn(3136, 3584, device=device), torch.rand(3136, device=device)
    span = SpanStates(hidden, attention, 18, 28, torch.arange(3136, device=device), 16, (14, 14), 3136)
    half = 3136 // 2
    normal = torch.nn.functional.normalize(hidden, dim=-1)
    times = interleaved(
        {
            "product": lambda: normal[:half] @ normal[half:].T,
            "inner": lambda: method.merge_span(span).apply(hidden),
        },
        max(3, options.repeats // 3),
        device,
    )
    results["inner"] = {
        "tokens in": 3136,
        "milliseconds": times["clock"]["inner"] * 1e3,
        "times its similarity product": times["clock"]["inner"] / times["clock"]["product"],
    }

    results["inner without a matrix"] = without_the_matrix()
    links = torch.rand(1023, 196, generator=torch.Generator().manual_seed(0)) < 0.9
    times = interleaved({"segment": lambda: segment(links)}, options.repeats, "cpu")
    tracemalloc.start()
    segment(links)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results["segmentation of 1,024 frames"] = {"milliseconds": times["clock"]["segment"] * 1e3, "peak KiB": peak / 1024}

    text = json.dumps(results, indent=2)
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
