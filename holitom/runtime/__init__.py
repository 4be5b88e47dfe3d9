"""Methods at work on transformers models: hooks that can be taken off again, and state that lives with the KV cache."""

from holitom.runtime.encoder import layouts_of, with_layouts
from holitom.runtime.question import question_for, question_ids
from holitom.runtime.records import InnerRecord, PromptRecord, VideoRecord
from holitom.runtime.session import Session
from holitom.runtime.summary import Summary

__all__ = [
    "InnerRecord", "PromptRecord", "Session", "Summary", "VideoRecord", "layouts_of", "question_for", "question_ids",
    "with_layouts",
]  # fmt: skip
