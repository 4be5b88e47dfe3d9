"""From a file to what a model reads: decoding, pixels and token ids, all of it in worker processes."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from holitom.corpus.sources import Item
from holitom.extras import sentence
from holitom.video.remote import LIMITS, FetchLimits, fetched


@dataclass(frozen=True, eq=False)
class Video:
    """A video that is ready for a model.

    Args:
        path: as the output names it.
        content: what the engine's ``encode`` takes; for transformers :class:`Prompts`.
        seconds: "decode" and "preprocess".
        warning: what is wrong with a video of which only a part could be read.
    """

    path: str
    content: Any
    seconds: dict[str, float] = field(default_factory=dict)
    warning: str | None = None


@dataclass(frozen=True)
class Failure:
    """A video that could not be read, and why."""

    path: str
    error: str


class Reader(Protocol):
    """What a worker process does with one video. It is pickled, and keeps what it loads."""

    def load(self) -> None:
        """Loads what all videos need. Called once in each process, outside of the time limit of a video.

        Raises:
            Exception: when that cannot be loaded; it ends the run.
        """

    def read(self, item: Item) -> Video:
        """Reads one video.

        Raises:
            Exception: whatever is wrong with it; it becomes the row's error.
        """


def use_cores(number: int = 1) -> None:
    """For a process that is one of several: FFmpeg decodes in so many threads, all else is done in one.

    The fewer, the less work in all; more only help where cores are idle. To be called when everything is loaded.
    """
    from holitom.video.container import decoder_threads

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    decoder_threads.set(number)


def attempt(reader: Reader, item: Item) -> Video | Failure:
    """Reads a video, or says why it cannot be read."""
    try:
        return reader.read(item)
    except Exception as error:  # a bad video must not cost the others, whatever a codec or a store raises
        return Failure(item.path, one_line(error, item))


def one_line(error: BaseException, item: Item | None = None) -> str:
    """An error as one line of text that every file format can hold; the video in it as the output names it."""
    text = sentence(error)
    if item is not None:
        text = text.replace(item.address, item.path)
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def local_copy(item: Item, limits: FetchLimits) -> Iterator[Path]:
    """The path of a video, see :func:`fetched`. What is wrong with it is told under the name that the output has."""
    with fetched(item.address, limits) as path:
        try:
            yield path
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), item.path)) from error


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of one video, one for each question.

    Args:
        start: the inputs of what they share, ``input_ids`` (1, P), the pixels and so on, up to the end of the video or
            one token further; numpy arrays, which travel between processes without a copy.
        rest: for each question the ids that follow.
        question: the question, where there is only one.
    """

    start: dict[str, Any]
    rest: list[list[int]]
    question: str | None = None


@dataclass(frozen=True)
class PromptReader:
    """Decodes and preprocesses for transformers.

    Args:
        model: path or hub id of the checkpoint, of which only the preprocessor is loaded.
        questions: asked about every video.
        frames: to sample; None: what the checkpoint asks for.
        limits: of fetching a video from a remote store.
        fps: frames to sample per second instead.
    """

    model: str
    questions: tuple[str, ...]
    frames: int | None
    limits: FetchLimits = LIMITS
    fps: float | None = None

    def load(self) -> None:
        """See :meth:`Reader.load`."""
        import holitom.video  # noqa: F401

        loaded(self.model)

    def read(self, item: Item) -> Video:
        """See :meth:`Reader.read`."""
        from holitom.video import read_video

        preprocessor, video_token = loaded(self.model)
        began = time.perf_counter()
        with local_copy(item, self.limits) as path:
            frames = preprocessor.frames if self.frames is None and self.fps is None else self.frames
            clip = read_video(path, frames, fps=self.fps, size=preprocessor.shrink)
        decoded = time.perf_counter()
        content = self.prepare(preprocessor, clip, video_token)
        seconds = {"decode": decoded - began, "preprocess": time.perf_counter() - decoded}
        return Video(item.path, content, seconds, clip.warning)

    def prepare(self, preprocessor: Any, clip: Any, video_token: int) -> Any:
        """The content of :class:`Video`, from a decoded clip."""
        return prompts_of(preprocessor, clip, self.questions, video_token)


@dataclass(frozen=True)
class PathReader:
    """Hands videos on unread: a film of hours is decoded where its windows are merged, never in one piece."""

    def load(self) -> None:
        """Nothing is needed."""

    def read(self, item: Item) -> Video:
        """See :meth:`Reader.read`."""
        return Video(item.path, item)


def prompts_of(preprocessor: Any, clip: Any, questions: Sequence[str], video_token: int) -> Prompts:
    """The prompts of all questions about a clip, whose pixels are made once.

    The first question's prompt is made by the preprocessor. Of the others only the text behind the video differs; it
    is tokenized by itself, which is right where the placeholder is a token of its own, and that is checked on the first
    question. Where it does not hold, every prompt is made by the preprocessor.

    What they share ends one token behind the video where they go on alike there, as with most chat templates: where
    positions have several axes, that token says how they go on.

    Raises:
        ValueError: when the prompts do not begin alike.
    """
    inputs = preprocessor(questions[0], clip)
    whole = [inputs["input_ids"][0].tolist()]
    ends = [behind_video(preprocessor, clip, question, video_token)[1] for question in questions]
    first = ends[0]
    if first is not None and whole[0][len(whole[0]) - len(first) :] == first:
        head = whole[0][: len(whole[0]) - len(first)]
        whole += [[*head, *end] for end in ends[1:] if end is not None]
    else:
        whole += [preprocessor(question, clip)["input_ids"][0].tolist() for question in questions[1:]]
    start, rest = shared_start(inputs, whole, video_token)
    one = questions[0] if len(questions) == 1 else None
    return Prompts({name: value.numpy() for name, value in start.items()}, rest, one)


def shared_start(
    inputs: dict[str, Any], whole: Sequence[list[int]], video_token: int
) -> tuple[dict[str, Any], list[list[int]]]:
    """Cuts the prompts of one video where they begin to differ behind it.

    Args:
        inputs: of the first prompt, ``input_ids`` (1, L) and all else.
        whole: the ids of every prompt.
        video_token: the id of the video's placeholder.

    Returns:
        The inputs of what they share, and for each prompt the ids that follow.

    Raises:
        ValueError: when the prompts do not begin alike.
    """
    # the token that stands for visual tokens: the video's; where frames are written as images, the commonest
    placeholder = video_token if video_token in whole[0] else max(set(whole[0]), key=whole[0].count)
    last = max(index for index, token in enumerate(whole[0]) if token == placeholder)
    cut = last + 1 + (len({ids[last + 1] for ids in whole if len(ids) > last + 1}) == 1)
    if any(ids[:cut] != whole[0][:cut] or len(ids) <= cut for ids in whole):
        raise ValueError(
            "the prompts of these questions differ before their video, so it cannot be read once for all: use a "
            "chat template that puts the video first"
        )
    length = len(whole[0])
    start = {
        name: value[:, :cut] if getattr(value, "shape", ())[:2] == (1, length) else value
        for name, value in inputs.items()
    }
    return start, [ids[cut:] for ids in whole]


def behind_video(preprocessor: Any, clip: Any, question: str, video_token: int) -> tuple[str, list[int] | None]:
    """The prompt as the chat template writes it, with one placeholder for the video, and the ids behind that.

    None instead of ids where the placeholder is no token of its own.
    """
    from holitom.video.chat import user_turn, without_media

    conversation = without_media([user_turn(question, clip)])
    template = getattr(preprocessor, "template", None)
    if template is not None:
        text = preprocessor.tokenizer.apply_chat_template(
            conversation, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    else:
        text = preprocessor.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    ids: list[int] = preprocessor.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = [index for index, token in enumerate(ids) if token == video_token]
    return text, ids[found[-1] + 1 :] if found else None


@functools.cache
def loaded(model: str) -> tuple[Any, int]:
    """A checkpoint's preprocessor and the id of its videos' placeholder, once for each process."""
    from transformers import AutoConfig

    from holitom.video import Preprocessor

    preprocessor, config = Preprocessor.from_pretrained(model), AutoConfig.from_pretrained(model)
    known = [getattr(config, name, None) for name in ("video_token_id", "video_token_index")]
    token = next((token for token in known if token is not None), None)
    if token is None:  # frames are images to the model; only the chat template knows a video
        word = getattr(getattr(preprocessor, "processor", None), "video_token", "<video>")
        token = preprocessor.tokenizer.convert_tokens_to_ids(word)
    return preprocessor, -1 if token is None else int(token)
