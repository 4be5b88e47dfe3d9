"""How long `import holitom` and `holitom --help` take, in processes of their own.

    python benchmarks/startup.py [--rounds 15] [--json FILE]

"python" is the bare interpreter. In each round all three run in turns; medians, and what holitom adds to the bare
interpreter in the same round. Targets: `import holitom` adds less than 50 ms, `holitom --help` takes less than 200 ms
in all. Beside the time on the wall stands processor time, which other work on the machine changes less. Files are read
once beforehand: a first start after installation also compiles and reads them from disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

STARTS = {
    "python": [sys.executable, "-c", ""],
    "import holitom": [sys.executable, "-c", "import holitom"],
    "holitom --help": [sys.executable, "-m", "holitom", "--help"],
}


def processor_time() -> float:
    """Of all processes that ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(command: list[str]) -> tuple[float, float]:
    """What a process takes from its start to its end: on the wall, and of processors."""
    wall, used = time.perf_counter(), processor_time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - wall, processor_time() - used


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each start, see :func:`seconds`, round by round, after a round that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for number in range(1 + rounds):
        for name, command in STARTS.items():
            took = seconds(command)
            if number:
                found[name].append(took)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(given.rounds)
    print(f"{'':16}  wall, ms  processor, ms  of it more than python, ms")
    for name, times in found.items():
        wall, used = (1e3 * statistics.median(part) for part in zip(*times, strict=True))
        more = 1e3 * statistics.median(one[1] - bare[1] for one, bare in zip(times, found["python"], strict=True))
        print(f"{name:16}  {wall:8.1f}  {used:13.1f}  {more:26.1f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
