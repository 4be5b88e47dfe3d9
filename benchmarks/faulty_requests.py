"""Requests for a server of the bundled model: good ones of every kind, and malformed ones."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_mp4

SERVER = {"retention": 0.2}
SETTINGS: dict[str, Any] = {"": None, "fewer": {"retention": 0.1}, "frames": {"method": "uniformframes"}}
CLIPS, FRAMES = 12, (16, 12, 8, 4)


@dataclass(frozen=True)
class Asked:
    """One request.

    Args:
        label: what it is; requests of one label are equal.
        body: as JSON, or bytes that are sent as they are.
    """

    label: str
    body: Any = field(repr=False)

    @property
    def content(self) -> bytes:
        """What is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def write_films(folder: Path) -> None:
    """Clips 0.mp4 to 11.mp4; other.mp4, which only malformed requests hold; and files that are no films."""
    *clips, other = suite("test", CLIPS + 1)
    for number, clip in enumerate(clips):
        write_mp4(clip.frames[: FRAMES[number % len(FRAMES)]], folder / f"{number}.mp4")
    whole = (folder / "0.mp4").read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    write_mp4(other.frames[:1], folder / "one.mp4")
    write_mp4(other.frames, folder / "other.mp4")


def good_requests(folder: Path) -> list[Asked]:
    """Videos by value and by path, with settings of their own; two videos and a picture; a picture; text."""
    found = []
    questions = [clip.questions[0].text for clip in suite("test", CLIPS)]
    for number, question in enumerate(questions):
        path, other = folder / f"{number}.mp4", folder / f"{(number + 1) % CLIPS}.mp4"
        for label, settings in SETTINGS.items():
            more = {} if settings is None else {"mm_processor_kwargs": {"holitom": settings}}
            send = sent if number % 2 else local
            found.append(Asked(f"film {number} {label}", chat([send(path), text(question)], **more)))
            if number % 4 == 0:
                two = [sent(path), picture(9 * number), local(other), text(question)]
                found.append(Asked(f"two films from {number} {label}", chat(two, **more)))
        if number % 4 == 1:
            found.append(Asked(f"picture {number}", chat([picture(9 * number), text(question)])))
            found.append(Asked(f"text {number}", chat([text(question)])))
    return found


def malformed_requests(folder: Path) -> list[Asked]:
    """What a server must refuse, and go on."""
    ask = text("Which shape is red?")
    good = sent(folder / "other.mp4")

    def options(**more: Any) -> Any:
        return chat([good, ask], mm_processor_kwargs=more)

    def ours(settings: Any) -> Any:
        return options(holitom=settings)

    bodies: dict[str, Any] = {
        "an empty film": chat([sent(folder / "empty.mp4"), ask]),
        "half a film": chat([sent(folder / "cut.mp4"), ask]),
        "noise for a film": chat([sent(folder / "noise.mp4"), ask]),
        "a film of one frame": chat([local(folder / "one.mp4"), ask]),
        "no base64": chat([by_url("data:video/mp4;base64,@@@@"), ask]),
        "a film for a picture": chat([by_url(good["video_url"]["url"], "image"), ask]),
        "a corrupt film beside a good one": chat([good, sent(folder / "noise.mp4"), ask]),
        "a file outside the folder": chat([by_url("file:///etc/passwd"), ask]),
        "an unknown scheme": chat([by_url("ftp://127.0.0.1/film.mp4"), ask]),
        "no address": chat([by_url(""), ask]),
        "more films than fit": chat([good] * 40 + [ask]),
        "top_p out of range": chat([good, ask], top_p=7),
        "a negative number of tokens": chat([good, ask], max_completion_tokens=-3),
        "no JSON": b'{"model": "tiny", "messages": [',
        "no UTF-8": b"\xff\xfe\x00" * 50,
        "no messages": {"model": "tiny"},
        "an unknown part": chat([{"type": "smell", "smell": "burnt"}, ask]),
        "another model": {**chat([ask]), "model": "huge"},
        "a huge retention": ours({"retention": 1e9}),
        "a retention that is no number": ours({"retention": "much"}),
        "more than the server keeps": ours({"retention": 0.5}),
        "an unknown method": ours("holitem"),
        "an unknown setting": ours({"colour": "red"}),
        "a method inside the LLM": ours("fastv"),
        "settings of another kind": ours([1, 2]),
        "settings in the wrong place": options(retention=0.1),
        "an odd size": options(size={"height": 57, "width": 57}),
        "a huge size": options(size={"height": 600, "width": 600}),
        "no resizing": options(do_resize=False),
        "a size of nothing": options(size={"height": 0, "width": 0}),
        "channels last": options(data_format="channels_last"),
        "no tensors": options(return_tensors="np"),
    }
    return [Asked(label, body) for label, body in bodies.items()]


def chat(parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A body of the OpenAI API that asks for six tokens, greedily."""
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": parts}],
        "max_completion_tokens": 6,
        "temperature": 0,
        "logprobs": True,
        **more,
    }


def text(words: str) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "text", "text": words}


def by_url(url: str, kind: str = "video") -> dict[str, Any]:
    """A part of a message."""
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def sent(path: Path) -> dict[str, Any]:
    """A film inside the request."""
    return by_url(f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}")


def local(path: Path) -> dict[str, Any]:
    """A film that the server opens."""
    return by_url(f"file://{path}")


def picture(shade: int) -> dict[str, Any]:
    """A grey picture."""
    file = io.BytesIO()
    Image.fromarray(np.full((112, 112, 3), shade, np.uint8)).save(file, "PNG")
    return by_url(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", "image")
