"""The most memory that a run held at once, measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holitom.long_video.memory import trim_heap

_STATUS, _RESET, _FREE = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")


@dataclass
class Peak:
    """Bytes at the peak of a block, and how far that is above what was held before it; None where unknown."""

    total: int | None = None
    above: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the block: memory of the device as torch allocates it, or on a CPU the process's resident memory (Linux).

    The figures are there when the block has ended.
    """
    peak = Peak()
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)
        before = module.memory_allocated(device)
        yield peak
        peak.total = module.max_memory_allocated(device)
    elif device.type == "cpu" and _resettable():
        trim_heap()
        _resettable()  # once more, now that what earlier runs left behind is gone
        before = _resident("VmRSS")
        yield peak
        peak.total = _resident("VmHWM")
    else:
        yield peak
        return
    peak.above = max(0, peak.total - before)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are still to be had; None where unknown."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    if device.type == "cpu" and _FREE.exists():
        return _line(_FREE.read_text(), "MemAvailable")
    return None


def release_memory(device: torch.device) -> None:
    """Hand cached blocks back to the device, after a failure for lack of memory."""
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "empty_cache"):
        module.empty_cache()


def _resettable() -> bool:
    """Whether the high-water mark of resident memory could be set back (writing 5 does, see proc(5))."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return _STATUS.exists()


def _resident(name: str) -> int:
    return _line(_STATUS.read_text(), name)


def _line(text: str, name: str) -> int:
    """The kilobytes behind ``name:`` as bytes."""
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:"))
