"""Reads copies of files in which bits are flipped, in a process of its own: ``python mutations.py SEED COUNT FILES``.

Prints one line for each file: its name, how many copies were read whole or in part, how many were refused, and the most
memory so far in MiB. Ends with an error when reading raises anything but a VideoError, or takes longer than 30 seconds.
"""

import faulthandler
import logging
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from holitom.video import VideoError, open_video, read_video


def flipped(data: bytes, seed: int) -> bytes:
    """1 to 300 bits are flipped; in every other copy only those of the first kilobyte, where headers are."""
    noise = np.random.default_rng(seed)
    mutated = np.frombuffer(data, np.uint8).copy()
    reach = len(mutated) if seed % 2 else min(1024, len(mutated))
    places = noise.integers(0, reach, int(10 ** noise.uniform(0, 2.5)))
    mutated[places] ^= (1 << noise.integers(0, 8, len(places))).astype(np.uint8)
    return mutated.tobytes()


def read_copies(path: Path, first: int, count: int) -> None:
    """Of one file."""
    read = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for seed in range(first, first + count):
            copy.write_bytes(flipped(path.read_bytes(), seed))
            print(f"{path.name}, seed {seed}", file=sys.stderr, flush=True)
            for work in (
                lambda: read_video(copy, 6),
                lambda: list(open_video(copy, fps=2).chunks(3)),
                lambda: list(open_video(copy, frames=5).chunks(3)),
            ):
                faulthandler.dump_traceback_later(30, exit=True)
                try:
                    work()
                    read += 1
                except VideoError:
                    refused += 1
                faulthandler.cancel_dump_traceback_later()
    print(path.name, read, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    logging.disable()
    for name in sys.argv[3:]:
        read_copies(Path(name), int(sys.argv[1]), int(sys.argv[2]))
