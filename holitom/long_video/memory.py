"""Giving freed memory back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def trim_heap() -> None:
    """Returns what has been freed, where the C library is glibc; elsewhere does nothing.

    glibc keeps freed blocks of up to 32 MiB in its heap. Over thousands of batches, large arrays that live for a moment
    between small ones that stay leave holes in it, and the process grows although it holds no more than before.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
