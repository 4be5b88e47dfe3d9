"""From lmms-eval's terms to holitom's: model arguments to a method, messages to conversations, generation settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from holitom.methods.base import Method
from holitom.methods.baselines import Uncompressed
from holitom.methods.registry import parse
from holitom.video.chat import Conversation
from holitom.video.clip import Clip

MAX_NEW_TOKENS = 1024  # where a task does not say


def method_of(name: str, settings: Mapping[str, Any]) -> Method:
    """The method that ``method=NAME`` and further model arguments describe; ``none`` is the uncompressed model.

    Settings go to the method, of a chain ``outer|inner`` to the outer one.

    Raises:
        ValueError: naming the unknown method or setting and what there is.
        TypeError: naming the setting of a wrong type.
    """
    if name == "none":
        if settings:
            raise ValueError(f"without a method there is nothing to set, got {', '.join(settings)}: give method=...")
        return Uncompressed()
    outer, bar, inner = name.partition("|")
    if settings:
        outer += ("," if ":" in outer else ":") + ",".join(f"{key}={value}" for key, value in settings.items())
    return parse(outer + bar + inner)


def conversation_of(messages: Iterable[Mapping[str, Any]], read: Callable[[str], Clip]) -> Conversation:
    """A conversation from lmms-eval's messages, in which media are PIL images, or paths of videos.

    Args:
        messages: lmms-eval's, each with a role and contents.
        read: decodes the video at a path.

    Raises:
        ValueError: for sound and parts of a video.
        TypeError: for media of other kinds.
    """
    return [{**message, "content": [_part(part, read) for part in _parts(message["content"])]} for message in messages]


def _parts(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _part(part: Mapping[str, Any], read: Callable[[str], Clip]) -> Mapping[str, Any]:
    kind, media = part["type"], part.get("url")
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind == "image" and isinstance(media, Image.Image):
        return {"type": "image", "image": media.convert("RGB")}
    if kind == "video" and isinstance(media, str | Path):
        if part.get("start_time") is not None or part.get("end_time") is not None:
            raise ValueError(f"{media} comes with a start or an end: holitom reads whole videos, cut the file first")
        return {"type": "video", "video": read(str(media))}
    raise TypeError(f"holitom takes text, PIL images and paths of videos, got {kind} as {type(media).__name__}")


def generation_of(task: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of ``generate()`` from a task's, and the strings at which an answer ends.

    A temperature of 0 (or none) is greedy search, as everywhere in lmms-eval.
    """
    given = dict(task)
    until = given.pop("until", None) or []
    temperature = given.pop("temperature", 0) or 0
    arguments: dict[str, Any] = {
        "max_new_tokens": int(given.pop("max_new_tokens", None) or MAX_NEW_TOKENS),
        "num_beams": int(given.pop("num_beams", None) or 1),
        "do_sample": bool(temperature > 0),
    }
    if temperature > 0:
        arguments["temperature"] = float(temperature)
        for name in ("top_p", "top_k"):
            if given.get(name) is not None:
                arguments[name] = given[name]
    return arguments, [until] if isinstance(until, str) else list(until)


def cut(text: str, until: Iterable[str]) -> str:
    """The text up to the first of some strings."""
    for end in until:
        if end:
            text = text.partition(end)[0]
    return text.strip()
