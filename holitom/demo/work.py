"""What the demo does with one question, apart from how it looks: limits, a thread, and news as they come."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from holitom.demo.reading import ClipReader, Limits
from holitom.extras import sentence
from holitom.methods.base import Method
from holitom.methods.registry import build, method_class, with_tower
from holitom.pipeline import Answer, Pipeline
from holitom.report.page import page
from holitom.report.trace import trace
from holitom.video import Clip


@dataclass(frozen=True)
class Progress:
    """What there is to see so far.

    Args:
        status: a sentence.
        failed: whether the status is an error.
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
        ValueError: when there is no such method, or the retention is out of range.
        TypeError: when the retention is no number.
    """
    fields = {field.name for field in dataclasses.fields(method_class(name))}
    share = next((field for field in ("retention", "inner_retention") if field in fields), None)
    return build(name, {} if share is None else {share: retention})


class QuestionQueue:
    """Takes questions of several people: clips are read side by side, the model answers one question after the other.

    Args:
        pipeline: model and preprocessor.
        model: its name, for the page.
        limits: of what may be asked.
    """

    def __init__(self, pipeline: Pipeline, model: str = "", limits: Limits | None = None) -> None:
        self.pipeline, self.model, self.limits = pipeline, model, limits or Limits()
        self.clips = ClipReader(self.limits)
        self._busy = threading.Lock()

    @property
    def frames(self) -> int:
        """The frames that the checkpoint asks for, up to the limit; where they depend on the film, the limit."""
        asked = self.pipeline.preprocessor.frames
        return min(self.limits.frames, asked) if isinstance(asked, int) else self.limits.frames

    def close(self) -> None:
        """Ends the processes that read clips."""
        self.clips.close()

    def ask(
        self,
        video: str | None,
        question: str,
        name: str,
        retention: float,
        frames: int,
        max_new_tokens: int,
        tower: str | None = None,
    ) -> Iterator[Progress]:
        """Asks with and without compression; what comes last holds the report, or an error in a sentence.

        Errors that a user can do something about become a status; others are raised.

        Args:
            video: path of the clip; None: there is none yet.
            question: what is asked.
            name: of the method.
            retention: share of the visual tokens that the method keeps.
            frames: to sample.
            max_new_tokens: the longest answer.
            tower: name of a method for the vision tower alone, in front of the other; None or "": no other.
        """
        now = Progress("reading the video ...")
        yield now
        try:
            self._check(video, question, frames, max_new_tokens)
            method = with_tower(method_of(name, retention), tower or None)
            clip = None
            for clip in self.clips.read(Path(str(video)), frames):
                if clip is None:
                    yield now
            assert clip is not None
        except (ValueError, TypeError, OSError) as error:
            yield replace(now, status=_sentence(error, video), failed=True)
            return
        while not self._busy.acquire(timeout=1.0):
            yield replace(now, status="waiting for an earlier question ...")
        try:
            yield from self._answer(now, clip, question.strip(), method, max_new_tokens)
        finally:
            self._busy.release()

    def _check(self, video: str | None, question: str, frames: int, max_new_tokens: int) -> None:
        limits = self.limits
        if not video:
            raise ValueError("there is no video yet: upload one, or pick a sample clip")
        if not question.strip():
            raise ValueError("there is no question yet: ask one")
        if len(question) > limits.question:
            raise ValueError(f"the question has {len(question)} characters; at most {limits.question} are taken")
        if not (1 <= frames <= limits.frames and 1 <= max_new_tokens <= limits.tokens):
            raise ValueError(f"frames go up to {limits.frames} and tokens of an answer up to {limits.tokens}")
        if Path(video).stat().st_size > limits.megabytes * 1_000_000:
            raise ValueError(f"the file is larger than {limits.megabytes:g} MB: cut it, or lower its resolution")

    def _answer(
        self, now: Progress, clip: Clip, question: str, method: Method, max_new_tokens: int
    ) -> Iterator[Progress]:
        """News from a thread in which the model works."""
        done = "done" if clip.warning is None else f"done, but a part of the video is missing: {clip.warning}"
        news: queue.Queue[tuple[str, object]] = queue.Queue()

        def work() -> None:
            try:
                found = trace(
                    self.pipeline,
                    clip,
                    question,
                    [method],
                    max_new_tokens=max_new_tokens,
                    model=self.model,
                    on_status=lambda text: news.put(("status", f"{text} ...")),
                    on_answer=lambda lane, piece: news.put((str(lane), piece)),
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
                    yield replace(now, status=_sentence(what, clip.source), failed=True)
                    return
                if kind == "page":
                    yield replace(now, status=done, page=str(what))
                    return
                now = _after(now, kind, what)
                yield now
        finally:
            thread.join()  # the model serves one question at a time, also when its asker has gone


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
    """The error in words, with the name that the user knows instead of the upload's path."""
    text = sentence(error)
    if video:
        name = Path(video).name
        text = text.replace(str(video), name)
        if text.startswith(name):
            return text
    return text[:1].upper() + text[1:]
