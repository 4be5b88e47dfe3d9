"""Counters of visual tokens before and after compression, on vLLM's own /metrics page.

They count in the process that serves HTTP, in prometheus_client's default registry, which vLLM exposes; with several
API servers prometheus_client adds them up, as it does vLLM's own.
"""

from __future__ import annotations

import functools
from typing import Any

NAMES = {
    "videos": ("holitom_videos", "Videos in prompts."),
    "before": ("holitom_video_tokens_before", "Tokens of these videos before compression."),
    "after": ("holitom_video_tokens_after", "Tokens of these videos that entered the LLM."),
}


@functools.cache
def _counters() -> dict[str, Any]:
    from prometheus_client import Counter

    return {key: Counter(name, text) for key, (name, text) in NAMES.items()}


def count_video(before: int, after: int) -> None:
    """Adds one video of a prompt, whether it was encoded now or had been before. Timestamps and newlines are text."""
    counters = _counters()
    counters["videos"].inc()
    counters["before"].inc(before)
    counters["after"].inc(after)
