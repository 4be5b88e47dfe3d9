"""A vLLM server on loopback, as long as a ``with`` block lasts: for benchmarks and tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

# What vLLM on a small CPU wants to be told, and nothing is fetched from anywhere.
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class Server:
    """Starts a command that serves the OpenAI API, waits until it is ready, and stops it with all its processes.

    Args:
        words: the command, without ``--host`` and ``--port``.
        log: where its output goes.
        patience: seconds to wait until it is ready.
        environment: variables beside those of this process; None: :data:`ENVIRONMENT`.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        patience: float = 400,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = _free_port()
        self.log = log
        self.words = [*words, "--host", "127.0.0.1", "--port", str(self.port)]
        self.seconds_to_ready: float | None = None
        self._patience = patience
        self._environment = {**os.environ, **(ENVIRONMENT if environment is None else environment)}

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, timeout: float = 10) -> str:
        """The body of a GET request.

        Raises:
            OSError: when nobody answers. RuntimeError: when the server has ended; with the end of its log.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {self.process.returncode}\n{self.tail()}")
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=timeout) as answer:
            return str(answer.read().decode())

    @property
    def alive(self) -> bool:
        """Whether it runs and says that it is well."""
        try:
            self.get("health")
        except (OSError, RuntimeError):
            return False
        return self.process.poll() is None

    def start(self) -> None:
        """Starts it and returns at once."""
        self._since = time.monotonic()
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    def wait(self) -> None:
        """Waits until it is ready.

        Raises:
            RuntimeError: when it ends, or does not get ready in time; with the end of its log.
        """
        while not self.alive:
            if self.process.poll() is not None or time.monotonic() - self._since > self._patience:
                self.stop()
                raise RuntimeError(f"the server did not start: {self.words}\n{self.tail()}")
            time.sleep(0.5)
        self.seconds_to_ready = time.monotonic() - self._since

    def tail(self, characters: int = 6000) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-characters:]

    def stop(self) -> int:
        """Ends it as a service manager would, by SIGTERM, and by force after half a minute; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it may have left behind
        return code

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _end_with_parent() -> None:
    """Asks Linux for SIGTERM when the starting process ends, however it ends; elsewhere nothing happens."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
