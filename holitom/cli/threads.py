"""How threads of this process wait for each other, decided before torch is loaded."""

from __future__ import annotations

import os
import sys

SPINS = "5000"  # some 10 microseconds


def wait_briefly() -> None:
    """Lets torch's threads on a CPU give up a core soon after an operation, for processes beside this one.

    GNU's OpenMP, which torch brings on Linux, otherwise keeps an idle thread spinning for about a millisecond, on a
    core on which a worker could decode. Does nothing where torch is loaded already or the user has decided.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
