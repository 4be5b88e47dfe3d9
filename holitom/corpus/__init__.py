"""Thousands of videos, some questions, one table of answers: resumable, on one machine or on Ray."""

from typing import TYPE_CHECKING, Any

from holitom.corpus.engine import Encoded, Engine, EngineFactory, Reply
from holitom.corpus.pool import Pool, Worker, WorkerError
from holitom.corpus.questions import list_questions
from holitom.corpus.reading import PathReader, PromptReader
from holitom.corpus.rows import Row, Totals
from holitom.corpus.run import Plan, Stop, run
from holitom.corpus.scratch import Scratch
from holitom.corpus.sources import Item, list_videos
from holitom.corpus.store import Store, StoreError

if TYPE_CHECKING:
    from holitom.corpus.with_transformers import TransformersEngine
    from holitom.corpus.with_windows import WindowsEngine

__all__ = [
    "Encoded", "Engine", "EngineFactory", "Item", "PathReader", "Plan", "Pool", "PromptReader", "Reply", "Row",
    "Scratch", "Stop", "Store", "StoreError", "Totals", "TransformersEngine", "WindowsEngine", "Worker", "WorkerError",
    "list_questions", "list_videos", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Engines are imported when they are asked for: the processes that read videos need no torch."""
    if name == "TransformersEngine":
        from holitom.corpus.with_transformers import TransformersEngine

        return TransformersEngine
    if name == "WindowsEngine":
        from holitom.corpus.with_windows import WindowsEngine

        return WindowsEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
