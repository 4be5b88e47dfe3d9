"""How long sampling frames from a film takes, beside seeking to each frame and decoding the whole film.

    python benchmarks/decode.py [--frames 32] [--length 1800] [--height 360] [--width 640] [--gop 250] [--runs 5]
    python benchmarks/decode.py --against ab7caf1     # beside an older commit of this repository

One core: the process pins itself to one where the system allows it. Beside a commit, films of ``length`` frames and of
ten times as many are read by both in turn, each in a process of its own, and on all cores, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from holitom.video import read_video, sample_indexes


def write_film(path: Path, length: int, height: int, width: int, gop: int) -> None:
    """A film with moving texture and noise, as hard to decode as a filmed one of its size."""
    noise = np.random.default_rng(0)
    grain = noise.integers(0, 30, (8, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(length):
            wave = (np.sin((x + 3 * number) / 17) + np.cos((y - 2 * number) / 23) + 2) * 50
            frame = wave.astype(np.uint8)[..., None] + grain[number % 8]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())


def by_seeking(path: Path, frames: int) -> np.ndarray:
    """The usual alternative: for each frame, seek to the keyframe before it and decode up to it."""
    kept = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step = 1 / (stream.average_rate * stream.time_base)
        for index in sample_indexes(stream.frames, frames):
            wanted = int(index * step)
            container.seek(wanted, stream=stream)
            for frame in container.decode(stream):
                if frame.pts >= wanted:
                    kept.append(frame.to_ndarray(format="rgb24"))
                    break
    return np.stack(kept)


def whole(path: Path, frames: int) -> np.ndarray:
    """Decode every frame in order and keep the sampled ones."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = set(sample_indexes(stream.frames, frames).tolist())
        return np.stack([f.to_ndarray(format="rgb24") for n, f in enumerate(container.decode(stream)) if n in wanted])


def seconds(work: Callable[[], object], runs: int) -> float:
    """Least processor time of ``runs`` runs after one to warm up: on one core, the wall time of a quiet machine."""
    work()
    times = []
    for _ in range(runs):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


READER = """
import sys, time
from holitom.video import read_video
for line in sys.stdin:  # a path: read it and say how long it took
    begin, work = time.perf_counter(), time.process_time()
    read_video(line.strip(), int(sys.argv[1]))
    print(time.perf_counter() - begin, time.process_time() - work, flush=True)
"""


def repeated(path: Path, times: int) -> Path:
    """The same film several times in a row, without encoding it again."""
    longer = path.with_name(f"{times}.mp4")
    with av.open(str(longer), "w") as output:
        stream = None
        for turn in range(times):
            with av.open(str(path)) as film:
                source = film.streams.video[0]
                stream = stream or output.add_stream_from_template(source)
                for packet in film.demux(source):
                    if packet.dts is not None:
                        packet.pts += turn * source.duration
                        packet.dts += turn * source.duration
                        packet.stream = stream
                        output.mux(packet)
    return longer


def against(commit: str, folder: Path, films: dict[str, Path], options: argparse.Namespace) -> None:
    """Print how long this tree and a commit take to read the films, and the ratio."""
    root = Path(__file__).resolve().parents[1]
    archive = subprocess.run(["git", "-C", root, "archive", commit, "holitom"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    names = {"this tree": root, commit: folder}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    for used in (1, len(cores)):
        readers = {
            name: subprocess.Popen(
                [*(["taskset", "-c", str(min(cores))] if used == 1 and cores else []),
                 sys.executable, "-c", READER, str(options.frames)],
                cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(place)},
            )
            for name, place in names.items()
        }  # fmt: skip
        for title, film in films.items():
            taken: dict[str, list[list[float]]] = {name: [] for name in names}
            for _ in range(options.runs + 1):
                for name, reader in readers.items():
                    assert reader.stdin is not None
                    assert reader.stdout is not None
                    reader.stdin.write(f"{film}\n")
                    reader.stdin.flush()
                    taken[name].append([float(part) for part in reader.stdout.readline().split()])
            ours, theirs = (np.min(taken[name][1:], axis=0) for name in names)  # the first run is to warm up
            print(
                f"{options.frames} frames of {title}, {used} core{'s' * (used > 1)}: {ours[0]:.3f} s, at {commit} "
                f"{theirs[0]:.3f} s, ratio {ours[0] / theirs[0]:.2f}; processor time {ours[1]:.3f} and "
                f"{theirs[1]:.3f} s, ratio {ours[1] / theirs[1]:.2f}"
            )
        for reader in readers.values():
            reader.communicate()


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("frames", 32), ("length", 1800), ("height", 360), ("width", 640), ("gop", 250), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--against", metavar="COMMIT", help="a commit of this repository to compare with")
    options = parser.parse_args()
    if options.against:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            write_film(path, options.length, options.height, options.width, options.gop)
            seconds_long = options.length / 30
            films = {f"{seconds_long:.0f} s": path, f"{seconds_long / 6:.0f} min": repeated(path, 10)}
            against(options.against, Path(folder), films, options)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_film(path, options.length, options.height, options.width, options.gop)
        ours = read_video(path, options.frames).frames
        same = np.array_equal(ours, whole(path, options.frames)) and np.array_equal(
            ours, by_seeking(path, options.frames)
        )
        times = {
            "holitom.video.read_video": seconds(lambda: read_video(path, options.frames), options.runs),
            "decoding the whole film": seconds(lambda: whole(path, options.frames), options.runs),
            "seeking to every frame": seconds(lambda: by_seeking(path, options.frames), options.runs),
        }
        size = path.stat().st_size / 2**20
    print(
        f"{options.frames} of {options.length} frames, {options.width}x{options.height} h264, {size:.1f} MiB, keyframe "
        f"every {options.gop}, one core; same pixels by all three: {'yes' if same else 'NO'}"
    )
    first = times["holitom.video.read_video"]
    for name, value in times.items():
        print(f"{name:26} {value:7.3f} s of processor time   {value / first:5.2f}x")


if __name__ == "__main__":
    main()
