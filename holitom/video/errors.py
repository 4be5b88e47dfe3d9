"""The one error that video input raises."""

from __future__ import annotations

from pathlib import Path


class VideoError(ValueError):
    """A video cannot be read: says which file, what is wrong with it and what to do.

    Attributes:
        source: the path as the caller gave it.
        reason: what is wrong, without the path.
        advice: what to do about it.
    """

    def __init__(self, source: str | Path, reason: str, advice: str) -> None:
        self.source = str(source)
        self.reason = reason
        self.advice = advice
        super().__init__(f"{self.source}: {reason}. {advice}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str]]:
        # Exceptions pickle by their message alone; worker processes need the three parts.
        return type(self), (self.source, self.reason, self.advice)
