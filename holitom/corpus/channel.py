"""Messages between a process and its workers, each with a time limit for the whole of it."""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import time
from typing import Any

SIZE = struct.Struct("!Q")


class Channel:
    """Messages between two processes, each of which comes within a time limit or not at all."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    def send(self, content: Any, seconds: float | None = None) -> None:
        """Sends a message; arrays go behind the rest as they are, so that nothing large is copied into a pickle.

        Raises:
            TimeoutError: when it was not taken within so many seconds.
            OSError: when nobody is there to take it.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        self.line.settimeout(seconds)
        self.line.sendall(b"".join(map(SIZE.pack, [len(parts), *(part.nbytes for part in parts)])))
        for part in parts:
            self.line.sendall(part)

    def receive(self, seconds: float | None = None) -> Any:
        """The next message, all of it.

        Raises:
            TimeoutError: when it was not complete after so many seconds.
            EOFError: when the other side has closed.
            OSError: when the other side has gone.
        """
        end = None if seconds is None else time.monotonic() + seconds
        (count,) = SIZE.unpack(self._take(SIZE.size, end))
        sizes = [SIZE.unpack(self._take(SIZE.size, end))[0] for _ in range(count)]
        body, *buffers = [self._take(size, end) for size in sizes]
        return pickle.loads(body, buffers=buffers)

    def close(self) -> None:
        """Ends the connection, also for a thread that is waiting in :meth:`receive`."""
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()

    def _take(self, size: int, end: float | None) -> bytearray:
        taken = bytearray(size)
        left = memoryview(taken)
        while left:
            if end is not None:
                self.line.settimeout(max(1e-3, end - time.monotonic()))
                if time.monotonic() > end:
                    raise TimeoutError
            count = self.line.recv_into(left)
            if not count:
                raise EOFError
            left = left[count:]
        return taken
