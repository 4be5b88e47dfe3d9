"""What the demo does with one question, apart from how it looks: limits, a thread, and news as they come."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av

from holitom.methods.base import Method
from holitom.methods.registry import build, method_class
from holitom.pipeline import Answer, Pipeline
from holitom.report.page import page
from holitom.report.trace import trace
from holitom.video import VideoError, read_video
from holitom.video.container import Reader

MEGABYTES = 64
SECONDS = 30 * 60
QUESTION = 500
FRAMES = 64
TOKENS = 256
PIXELS = 64 * 1920 * 1080  # of all frames together, that are held while the model is asked


@dataclass(frozen=True)
class Progress:
    """What there is to see so far.

    Args:
        status: a sentence.
        failed: whether it tells of an error.
        answers: uncompressed and compressed, as far as they have come.
        numbers: what is known of each.
        page: the report, when all is done.
    """

    status: str = ""
    failed: bool = False
    answers: tuple[str, str] = ("", "")
    numbers: tuple[str, str] = ("", "")
    page: str | None = None


def method_of(name: str, retention: float) -> Method:
    """The method with this retention: before the LLM, or inside it for a method that works only there.

    Raises:
        ValueError, TypeError: when there is no such method, or the retention is out of range.
    """
    fields = {field.name for field in dataclasses.fields(method_class(name))}
    share = next((field for field in ("retention", "inner_retention") if field in fields), None)
    return build(name, {} if share is None else {share: retention})


def run(
    pipeline: Pipeline,
    video: str | None,
    question: str,
    name: str,
    retention: float,
    frames: int,
    max_new_tokens: int,
    model: str = "",
) -> Iterator[Progress]:
    """Asks with and without compression; what comes last holds the report, or an error in a sentence.

    Only errors that a user can do something about are told; others are raised.
    """
    now = Progress("reading the video ...")
    yield now
    try:
        if not video:
            raise ValueError("there is no video yet: upload one, or pick a sample clip")
        if not question.strip():
            raise ValueError("there is no question yet: ask one")
        if len(question) > QUESTION:
            raise ValueError(f"the question has {len(question)} characters; at most {QUESTION} are taken")
        if not (1 <= frames <= FRAMES and 1 <= max_new_tokens <= TOKENS):
            raise ValueError(f"frames go up to {FRAMES} and tokens of an answer up to {TOKENS}")
        if Path(video).stat().st_size > MEGABYTES * 1_000_000:
            raise ValueError(f"the file is larger than {MEGABYTES} MB: cut it, or lower its resolution")
        method = method_of(name, retention)
        _check_size(Path(video), frames)
        clip = read_video(video, frames)
    except (ValueError, TypeError, OSError) as error:
        yield replace(now, status=_sentence(error, video), failed=True)
        return
    clip = replace(clip, source=Path(video).name)
    done = "done" if clip.warning is None else f"done, but a part of the video is missing: {clip.warning}"
    news: queue.Queue[tuple[str, object]] = queue.Queue()

    def work() -> None:
        try:
            found = trace(
                pipeline,
                clip,
                question.strip(),
                [method],
                max_new_tokens=max_new_tokens,
                model=model,
                tell=lambda text: news.put(("status", f"{text} ...")),
                listen=lambda lane, piece: news.put((str(lane), piece)),
            )
            news.put(("page", page(found)))
        except BaseException as error:
            news.put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, what = news.get()
            if kind == "error":
                if not isinstance(what, ValueError | TypeError | OSError | RuntimeError | MemoryError):
                    raise what  # type: ignore[misc]
                yield replace(now, status=_sentence(what, video), failed=True)
                return
            if kind == "page":
                yield replace(now, status=done, page=str(what))
                return
            now = _after(now, kind, what)
            yield now
    finally:
        thread.join()  # the model serves one question at a time, also when its asker has gone


def _check_size(path: Path, frames: int) -> None:
    """Raises ValueError for a film that would take too long to decode or too much memory to hold, by its header."""
    try:
        with Reader(path, path.name) as reader:
            stream, container = reader.stream, reader.container
            pixels = frames * stream.width * stream.height
            seconds = float(container.duration or 0) / av.time_base
    except VideoError:
        return  # no film: read_video says what it is, or what is wrong with it
    if pixels > PIXELS:
        raise ValueError(
            f"{frames} frames of {stream.width} x {stream.height} pixels are more than this demo holds: "
            "ask for fewer frames, or lower the video's resolution"
        )
    if seconds > SECONDS:
        raise ValueError(f"the video lasts {seconds / 60:.0f} minutes; at most {SECONDS // 60} are taken: cut it")


def _after(now: Progress, kind: str, what: object) -> Progress:
    if kind == "status":
        return replace(now, status=str(what))
    lane = int(kind)
    answers, numbers = list(now.answers), list(now.numbers)
    if isinstance(what, Answer):
        answers[lane], numbers[lane] = what.text or "(no answer)", _numbers(what)
    else:
        answers[lane] += str(what)
    return replace(now, answers=(answers[0], answers[1]), numbers=(numbers[0], numbers[1]))


def _numbers(answer: Answer) -> str:
    full, entering, leaving = answer.summary.visual_tokens
    parts = [f"first token after {answer.time_to_first_token * 1e3:,.0f} ms"]
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:,.1f} tokens/s")
    parts.append(f"{entering:,} of {full:,} visual tokens enter the LLM")
    if leaving != entering:
        parts.append(f"{leaving:,} leave it")
    if answer.summary.cost is not None:
        parts.append(f"KV cache {answer.summary.cost.compressed.kv_cache_bytes / 1e6:,.2f} MB")
    return "; ".join(parts)


def _sentence(error: BaseException, video: str | None) -> str:
    """The error in words, with the name that the user knows instead of the place where the upload lies."""
    text = str(error).strip() or type(error).__name__
    if video:
        name = Path(video).name
        text = text.replace(str(video), name)
        if text.startswith(name):
            return text
    return text[:1].upper() + text[1:]
