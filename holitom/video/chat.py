"""Conversations about videos and images, in transformers' chat format with the media in them.

A conversation is a list of messages ``{"role": "user", "content": [part, ...]}`` with the parts
``{"type": "text", "text": str}``, ``{"type": "video", "video": Clip}`` and ``{"type": "image", "image": PIL image}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image

from holitom.video.clip import Clip

Media: TypeAlias = "Clip | Image.Image"
Message: TypeAlias = Mapping[str, Any]
Conversation: TypeAlias = Sequence[Message]


def user_turn(question: str, *media: Media) -> Message:
    """A user's message: the media in the order given, then the question."""
    if not isinstance(question, str):
        raise TypeError(f"question must be a str, got {type(question).__name__}")
    return {"role": "user", "content": [*map(_part, media), {"type": "text", "text": question}]}


def model_turn(answer: str) -> Message:
    """What the model answered in an earlier turn. As a conversation's last message: how its answer begins."""
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def ending(conversation: Conversation) -> dict[str, bool]:
    """How a chat template ends a conversation: with the start of an answer, or within the one that is there."""
    begun = bool(conversation) and conversation[-1]["role"] == "assistant"
    return {"continue_final_message": True} if begun else {"add_generation_prompt": True}


def parts(conversation: Conversation) -> Iterator[Mapping[str, Any]]:
    """All parts of all messages in order; a message of plain text is one text part."""
    for message in conversation:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise TypeError(f"a message must be a mapping with role and content, got {message!r:.100}")
        content = message["content"]
        if isinstance(content, str):
            yield {"type": "text", "text": content}
            continue
        for part in content:
            kind = part.get("type")
            if kind not in {"text", "video", "image"}:
                raise ValueError(f"a part must be of type text, video or image, got {kind!r}")
            if kind != "text" and _part(part.get(kind))["type"] != kind:
                raise TypeError(f"a part of type {kind} holds a {type(part[kind]).__name__}")
            yield part


def question_of(conversation: Conversation) -> str:
    """The last text of the last message of the role "user"; "" for none."""
    texts = [part["text"] for message in conversation if message["role"] == "user" for part in parts([message])
             if part["type"] == "text" and part["text"].strip()]  # fmt: skip
    return texts[-1] if texts else ""


def videos(conversation: Conversation) -> list[Clip]:
    """The clips of a conversation, in order."""
    return [part["video"] for part in parts(conversation) if part["type"] == "video"]


def images(conversation: Conversation) -> list[Image.Image]:
    """The images of a conversation, in order."""
    return [part["image"] for part in parts(conversation) if part["type"] == "image"]


def without_media(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation as a chat template takes it: parts say where media go, and hold none."""
    return [
        {**message, "content": [dict(p) if p["type"] == "text" else {"type": p["type"]} for p in parts([message])]}
        for message in conversation
    ]


def _part(media: Any) -> dict[str, Any]:
    if isinstance(media, Clip):
        return {"type": "video", "video": media}
    if isinstance(media, Image.Image):
        return {"type": "image", "image": media}
    raise TypeError(
        f"media must be clips or PIL images, got {type(media).__name__}: "
        "read a video with holitom.video.read_video, or wrap frames with Clip.from_frames"
    )
