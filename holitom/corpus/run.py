"""The run: groups of videos through an engine, batch by batch into the store, until all is done or it is stopped."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from holitom.corpus.engine import Encoded, Engine, Reply
from holitom.corpus.pool import Pool
from holitom.corpus.reading import Failure, Reader, Video, one_line
from holitom.corpus.rows import Key, Row
from holitom.corpus.sources import Item
from holitom.corpus.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is to be done, and in which portions; none of it changes an answer but by rounding.

    Args:
        items: the videos.
        questions: asked about each of them.
        frames: to sample; None: what the checkpoint asks for.
        workers: processes that read videos.
        prefetch: videos that are read and not yet encoded, at most; None: two for each worker.
        timeout: seconds for reading one video, see :class:`holitom.corpus.pool.Pool`.
        batch_tokens: tokens of a batch, padding included.
        group: videos among which batches are made.
    """

    items: Sequence[Item]
    questions: tuple[str, ...]
    frames: int | None = None
    workers: int = 2
    prefetch: int | None = None
    timeout: float = 600.0
    batch_tokens: int = 16_384
    group: int = 16

    def __post_init__(self) -> None:
        if not self.items or not self.questions:
            raise ValueError("a run needs at least one video and one question")
        if self.batch_tokens < 1 or self.group < 1:
            raise ValueError(f"batch_tokens and group must be at least 1, got {self.batch_tokens} and {self.group}")

    @property
    def rows(self) -> int:
        """How many rows the output has in the end."""
        return len(self.items) * len(self.questions)

    def left(self, found: Iterable[Key]) -> list[list[Item]]:
        """The groups that are not finished, with all their videos.

        Batches never reach beyond a group. So they are the same in a run that was interrupted, whatever it had
        finished, and with them every rounding.
        """
        found, starts = set(found), range(0, len(self.items), self.group)
        groups = [list(self.items[start : start + self.group]) for start in starts]
        return [group for group in groups if self.unread(group, found)]

    def unread(self, group: Sequence[Item], found: Iterable[Key]) -> list[Item]:
        """The videos of a group of which a row is missing."""
        known = found if isinstance(found, dict | set) else set(found)
        return [item for item in group if any((item.path, question) not in known for question in self.questions)]


class Stop:
    """True when the run is to end after the batch in flight: after the first Ctrl-C. The second one ends it at once."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked

    @contextmanager
    def on_interrupt(self) -> Iterator[Stop]:
        """Within the block, the first Ctrl-C or SIGTERM lets the batch in flight finish."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    plan: Plan,
    engine: Engine,
    reader: Reader,
    store: Store,
    stop: Any = False,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Answers everything that is not in the store yet.

    Args:
        plan: what is to be done.
        engine: answers.
        reader: prepares videos for the engine, in worker processes.
        store: gets the rows.
        stop: true when the run is to end after the batch in flight.
        done: called after each batch.

    Raises:
        StoreError: when the output cannot be written any more.
        WorkerError: when worker processes cannot be started.
    """
    from holitom.long_video.memory import trim_heap

    todo = plan.left(store.found)
    unread = [item for group in todo for item in plan.unread(group, store.found)]
    with Pool(reader, plan.workers, plan.prefetch, plan.timeout) as pool:
        videos = pool.read(unread, stop)
        for group in todo:
            for rows in answer_group(plan, group, engine, videos, store.found, stop):
                store.add(rows)
                done()
            trim_heap()  # or the process grows over thousands of videos although it holds no more
            if stop:
                return


def answer_group(
    plan: Plan,
    group: Sequence[Item],
    engine: Engine,
    videos: Iterator[Video | Failure],
    found: dict[Key, Row],
    stop: Any = False,
) -> Iterator[list[Row]]:
    """The rows of a group that are missing, batch by batch.

    Args:
        plan: of the run.
        group: neighbouring videos.
        engine: answers.
        videos: the group's videos of which a row is missing, in order.
        found: rows that are finished. They still count when batches are made, so that these stay the same.
        stop: as in :func:`run`.
    """
    encoded: dict[str, Encoded] = {}
    read: dict[str, Video] = {}
    for item in plan.unread(group, found):
        if stop:
            return
        video = next(videos, None)
        if video is None:  # stopped while it was read
            return
        if isinstance(video, Video):
            try:
                encoded[item.path] = engine.encode(video)
                warning = video.warning or encoded[item.path].warning
                read[item.path] = Video(video.path, None, video.seconds, warning)  # its pixels are done with
                continue
            except Exception as error:
                logger.debug("%s", item.path, exc_info=error)
                video = Failure(item.path, one_line(error, item))
        missing = [question for question in plan.questions if (item.path, question) not in found]
        yield [Row(item.path, question, error=video.error) for question in missing]
    keys = [(item.path, question) for item in group for question in plan.questions]
    jobs: list[tuple[Key, int]] = []
    for number, (path, question) in enumerate(keys):
        row = found.get((path, question))
        if row is not None and row.entering is not None:
            jobs.append(((path, question), row.entering))
        elif row is None and path in encoded:
            jobs.append(((path, question), encoded[path].lengths[number % len(plan.questions)]))
    batches = pack([length for _, length in jobs], plan.batch_tokens if engine.together else 1)
    paid = {path for path, _ in found if found[path, _].error is None}
    for batch in batches:
        keys = [jobs[index][0] for index in batch if jobs[index][0] not in found]
        if stop:
            return
        if keys:
            yield _rows(plan, engine, keys, encoded, read, paid)


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of rows of like length, none of which is longer than ``budget`` when padded to its longest row.

    Args:
        lengths: tokens of each row.
        budget: tokens of a batch; a row that is longer is a batch of its own.

    Returns:
        Indexes into ``lengths``, each once. The longest rows come first, so that what does not fit into memory fails at
        once and not after hours.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _rows(
    plan: Plan,
    engine: Engine,
    keys: list[Key],
    encoded: dict[str, Encoded],
    read: dict[str, Video],
    paid: set[str],
) -> list[Row]:
    """One batch's rows; where the batch fails, each row is tried by itself, and one that fails has its error."""
    shared = []
    for path, _ in keys:
        shared.append(path in paid)
        paid.add(path)
    asked = [(encoded[path], plan.questions.index(question)) for path, question in keys]
    began = time.perf_counter()
    try:
        replies: list[Reply | Exception] = list(engine.answer(asked, shared))
    except Exception as error:
        logger.debug("a batch of %d rows failed", len(keys), exc_info=error)
        replies = [error] if len(keys) == 1 else [_answer_one(engine, *one) for one in zip(asked, shared, strict=True)]
    seconds = (time.perf_counter() - began) / len(keys)
    return [_row(key, one, first, read[key[0]], seconds) for key, one, first in zip(keys, replies, shared, strict=True)]


def _answer_one(engine: Engine, row: tuple[Encoded, int], shared: bool) -> Reply | Exception:
    try:
        return engine.answer([row], [shared])[0]
    except Exception as error:
        return error


def _row(key: Key, reply: Reply | Exception, shared: bool, video: Video, seconds: float) -> Row:
    spent = {name: 0.0 if shared else video.seconds.get(name, 0.0) for name in ("decode", "preprocess", "prefix")}
    common: dict[str, Any] = {f"seconds_{name}": value for name, value in spent.items()}
    common |= {"seconds_answer": seconds, "warning": video.warning}
    if isinstance(reply, Exception):
        return Row(*key, **common, error=one_line(reply))
    return Row(*key, **common | asdict(reply.counts), answer=reply.text)
