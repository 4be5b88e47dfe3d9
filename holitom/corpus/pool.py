"""Worker processes that read videos while the model is busy: a bounded number of videos, and no death is a hang."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

from typing_extensions import Self

from holitom.corpus.channel import Channel
from holitom.corpus.reading import Failure, Reader, Video, attempt, one_line, use_cores
from holitom.corpus.scratch import Scratch, clear_scratch
from holitom.corpus.sources import Item

START = 300.0  # seconds until a worker has imported and loaded what it needs
NICENESS = 19  # of a worker: where both want a core, the model goes first, and then waits for videos
ATTEMPTS = 2  # a worker may die of something else than the video it holds
PR_SET_PDEATHSIG = 1  # linux/prctl.h: a signal for when the thread ends that started this process


class WorkerError(RuntimeError):
    """Worker processes cannot be started."""


class Pool:
    """Reads videos in worker processes and gives them back in order.

    At most ``prefetch`` videos are in work or waiting, so memory is bounded by so many. A worker that dies is replaced
    and its video tried once more; then it is a :class:`Failure`. So is one that takes longer than ``timeout``.

    Args:
        reader: what a worker does.
        workers: processes; 0: read in this one, one video at a time and without a time limit.
        prefetch: videos in work or waiting; None: two for each worker.
        timeout: seconds from sending a video to a worker until all of what was read has come back. Starting a worker
            and loading its preprocessor do not count.
    """

    def __init__(self, reader: Reader, workers: int, prefetch: int | None = None, timeout: float = 600.0) -> None:
        if workers < 0 or (prefetch is not None and prefetch < 1) or not timeout > 0:
            raise ValueError(
                "workers must be at least 0, prefetch at least 1 and timeout above 0, got "
                f"{workers}, {prefetch} and {timeout}"
            )
        self.reader = reader
        self._slots = threading.Semaphore(prefetch or max(1, 2 * workers))
        self._changed = threading.Condition()
        self._work: Iterator[tuple[int, Item]] = iter(())
        self._ready: dict[int, Video | Failure | BaseException] = {}
        self._closed = False
        share = max(1, _cores() // max(1, workers))
        self.workers = [Worker(reader, timeout, share) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, items: Iterable[Item], stop: Any = False) -> Iterator[Video | Failure]:
        """The videos, in order, as they are asked for. Once for each pool.

        Args:
            items: the videos.
            stop: true when nobody waits for videos any more: ends the iteration, also while one is being read by a
                worker.

        Raises:
            WorkerError: when worker processes cannot be started, or cannot load what they need.
        """
        items = list(items)
        if not self.workers:
            if items:
                self.reader.load()
            for item in items:
                yield attempt(self.reader, item)
            return
        self._work = iter(enumerate(items))
        for worker in self.workers:
            threading.Thread(target=self._serve, args=(worker,), daemon=True).start()
        for number in range(len(items)):
            with self._changed:
                while number not in self._ready:
                    if stop:
                        return
                    self._changed.wait(0.2)
                found = self._ready.pop(number)
            self._slots.release()
            if isinstance(found, BaseException):
                raise found
            yield found

    def close(self) -> None:
        """Ends the workers."""
        self._closed = True
        for worker in self.workers:
            self._slots.release()  # its thread may wait for one
            worker.end()
        clear_scratch()

    def _serve(self, worker: Worker) -> None:
        while not self._closed:
            self._slots.acquire()
            with self._changed:
                number, item = next(self._work, (-1, None))
            if item is None or self._closed:
                self._slots.release()
                break
            try:
                found: Video | Failure | BaseException = worker.read(item)
            except BaseException as error:  # raised where the video is waited for
                found = error
            with self._changed:
                self._ready[number] = found
                self._changed.notify_all()
        if self._closed:
            worker.end()  # it may have been started since


class Worker:
    """One process that reads videos, started when it is needed and again when it has died.

    For one thread, with which the process ends (on Linux).

    Args:
        reader: what it does.
        timeout: seconds for one video, see :class:`Pool`.
        cores: threads that it may decode with.
    """

    def __init__(self, reader: Reader, timeout: float, cores: int = 1) -> None:
        self.reader, self.timeout, self.cores = reader, timeout, cores
        self.process: Any = None
        self._channel: Channel | None = None
        self._ended = False
        self._lock = threading.Lock()  # end() may be called by another thread, while this one starts the process

    def read(self, item: Item) -> Video | Failure:
        """Reads one video.

        Raises:
            WorkerError: when the process cannot be started, or cannot load what it needs.
        """
        why = ""
        for _ in range(ATTEMPTS):
            channel = self.start()
            try:
                channel.send(item, self.timeout)
                found: Video | Failure = channel.receive(self.timeout)
                return found
            except TimeoutError:
                self._stop()
                return Failure(item.path, f"it took longer than {self.timeout:g} s to read and was given up")
            except (EOFError, OSError):
                why = f"the worker process that read it died (exit code {self._stop()})"
            if self._ended:
                break
        return Failure(item.path, f"{why}, {ATTEMPTS} times; the file may crash its decoder, or memory ran out")

    def start(self) -> Channel:
        """The channel to the process, which is started where there is none.

        Raises:
            WorkerError: see :meth:`read`.
        """
        why = ""
        for _ in range(ATTEMPTS):
            if self._channel is not None:
                return self._channel
            if self._ended:
                break
            try:
                channel = self._launch()
                problem: str | None = channel.receive(START)
            except TimeoutError:
                self._stop()
                why = f"it was not ready after {START:g} s"
            except (EOFError, OSError):
                why = f"it died (exit code {self._stop()})"
            else:
                if problem is None:
                    return channel
                self._stop()
                raise WorkerError(problem)
        raise WorkerError(f"a worker process cannot be started: {why or 'the pool was closed'}")

    def end(self) -> None:
        """Ends the process for good."""
        self._ended = True
        self._stop()

    def _launch(self) -> Channel:
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_work, args=(theirs, self.reader, self.cores), daemon=True)
        with self._lock:
            if self._ended:
                raise EOFError
            process.start()
            self.process, self._channel = process, Channel(ours)
        theirs.close()
        return self._channel

    def _stop(self) -> int | None:
        """Kills the process and clears its temporary files; returns its exit code, None where it has not died yet."""
        with self._lock:
            channel, process, self._channel = self._channel, self.process, None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        process.join(0.5)  # one that has died by itself keeps its exit code
        if process.is_alive():
            process.kill()
            process.join(5)
        clear_scratch()
        code: int | None = process.exitcode
        return code


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work(line: socket.socket, reader: Reader, cores: int) -> None:
    """The worker: reads what it is sent until nobody sends any more. Ctrl-C is for the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    channel, problem = Channel(line), None
    with Scratch(), contextlib.suppress(EOFError, OSError):
        try:
            reader.load()
        except Exception as error:
            problem = one_line(error)
        use_cores(cores)
        channel.send(problem)
        while True:
            channel.send(attempt(reader, channel.receive()))


def _die_with_parent() -> None:
    """From here on this process ends when the one that started it is killed, whatever it is reading.

    On Linux the kernel sees to it, also where this process is stopped; elsewhere a thread waits for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
