"""Worker processes that read videos ahead of the model: a bounded number of videos, and no death is a hang."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from typing_extensions import Self

from holitom.corpus.reading import Failure, Reader, Video, attempt, use_cores
from holitom.corpus.sources import Item

START = 300.0  # seconds until a worker has imported what it needs
BEHIND = 19  # niceness of a worker: where both want a core, the model goes first, and then waits for videos
ATTEMPTS = 2  # a worker may die of something else than the video it holds


class Pool:
    """Reads videos in worker processes and gives them back in order.

    At most ``ahead`` videos are in work or waiting, so memory is bounded by so many. A worker that dies is replaced
    and its video tried once more; then it is a :class:`Failure`. So is one that takes longer than ``patience``.

    Args:
        reader: what a worker does. workers: processes; 0: read in this one, nothing runs ahead.
        ahead: videos in work or waiting; None: two for each worker.
        patience: seconds that one video may take.
    """

    def __init__(self, reader: Reader, workers: int, ahead: int | None = None, patience: float = 600.0) -> None:
        if workers < 0 or (ahead is not None and ahead < 1) or patience <= 0:
            raise ValueError(
                f"workers must be at least 0, ahead at least 1 and patience above 0, got {workers}, {ahead}, {patience}"
            )
        self.reader, self.patience = reader, patience
        self._room = threading.Semaphore(ahead or max(1, 2 * workers))
        self._changed = threading.Condition()
        self._work: Iterator[tuple[int, Item]] = iter(())
        self._ready: dict[int, Video | Failure | BaseException] = {}
        self._closed = False
        share = max(1, _cores() // max(1, workers))
        self.hands = [_Hand(reader, patience, share) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, items: Iterable[Item]) -> Iterator[Video | Failure]:
        """The videos, in order, as they are asked for. Once for each pool."""
        items = list(items)
        if not self.hands:
            for item in items:
                yield attempt(self.reader, item)
            return
        self._work = iter(enumerate(items))
        for hand in self.hands:
            threading.Thread(target=self._serve, args=(hand,), daemon=True).start()
        for number in range(len(items)):
            with self._changed:
                while number not in self._ready:
                    self._changed.wait()
                found = self._ready.pop(number)
            self._room.release()
            if isinstance(found, BaseException):
                raise found
            yield found

    def close(self) -> None:
        """Ends the workers."""
        self._closed = True
        for hand in self.hands:
            hand.end()

    def _serve(self, hand: _Hand) -> None:
        while not self._closed:
            self._room.acquire()
            with self._changed:
                number, item = next(self._work, (-1, None))
            if item is None:
                self._room.release()
                return
            try:
                found: Video | Failure | BaseException = hand.read(item)
            except BaseException as error:  # workers cannot be started at all: the one who reads is told
                found = error
            with self._changed:
                self._ready[number] = found
                self._changed.notify_all()


class _Hand:
    """One worker process and the thread of this process that serves it."""

    def __init__(self, reader: Reader, patience: float, cores: int) -> None:
        self.reader, self.patience, self.cores = reader, patience, cores
        self.process: Any = None
        self.line: Connection | None = None
        self.ended = False

    def read(self, item: Item) -> Video | Failure:
        """Has the worker read one video."""
        why = ""
        for _ in range(ATTEMPTS):
            try:
                line = self._start()
                line.send(item)
                if not line.poll(self.patience):
                    self._stop()
                    return Failure(item.path, f"it took longer than {self.patience:g} s to read and was given up")
                return _receive(line)
            except (EOFError, OSError):
                self.process.join(10)
                why = f"the worker process that read it died (exit code {self.process.exitcode})"
                self._stop()
            if self.ended:
                break
        return Failure(item.path, f"{why}, {ATTEMPTS} times; the file may crash its decoder, or memory ran out")

    def end(self) -> None:
        """Ends the worker for good."""
        self.ended = True
        self._stop()

    def _start(self) -> Connection:
        if self.line is None:
            context = multiprocessing.get_context("spawn")
            self.line, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, self.reader, self.cores), daemon=True)
            self.process.start()
            theirs.close()
            if not self.line.poll(START):
                raise EOFError
            self.line.recv()
        return self.line

    def _stop(self) -> None:
        line, process, self.line = self.line, self.process, None
        if line is not None:
            with contextlib.suppress(OSError):
                line.close()
        if process is not None and process.is_alive():
            process.kill()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work(line: Connection, reader: Reader, cores: int) -> None:
    """The worker: reads what it is sent until nobody sends any more. Ctrl-C is for the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    use_cores(cores)
    if hasattr(os, "nice"):
        os.nice(BEHIND)
    with contextlib.suppress(EOFError, OSError):
        line.send(None)  # started
        while True:
            _send(line, attempt(reader, line.recv()))


def _send(line: Connection, found: Video | Failure) -> None:
    """Arrays go behind the rest as they are: nothing large is copied into a pickle."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(found, protocol=5, buffer_callback=buffers.append)
    line.send((body, [buffer.raw().nbytes for buffer in buffers]))
    for buffer in buffers:
        line.send_bytes(buffer.raw())


def _receive(line: Connection) -> Video | Failure:
    body, sizes = line.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        line.recv_bytes_into(buffer)
    found: Video | Failure = pickle.loads(body, buffers=buffers)
    return found
