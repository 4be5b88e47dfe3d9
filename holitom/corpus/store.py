"""The output of a run that may be killed at any moment: rows are durable batch by batch, and the file is always whole.

Beside OUT lies OUT.run. Its first line holds the settings; then come the rows that are finished and not yet in OUT,
batch by batch, each batch on the disk before the next one starts. Every now and then OUT is written anew with them,
under another name, and put in its place at once; then OUT.run starts again. A kill between the two leaves rows in both,
which are told apart by path and question. A line of OUT.run that a kill or a full disk has cut off is left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from typing_extensions import Self

from holitom.corpus.formats import format_of, sync_folder
from holitom.corpus.rows import Key, Row
from holitom.resume import differences

logger = logging.getLogger(__name__)

PAUSE = 5.0  # seconds between two writings of OUT, at least
SHARE = 20  # and this many times as long as the last one took: 5 % of the time at most
REMEMBERED = ("prompt_tokens", "visual_tokens_in", "visual_tokens_out", "error")  # of a row on the disk, for batches


class StoreError(RuntimeError):
    """The output cannot be written any more; says what was saved and where."""


class Store:
    """The rows of one run on disk.

    Args:
        path: OUT, ending with .parquet or .jsonl.
        settings: what must be the same for rows to belong together; plain JSON. Their "model" is written into each row.
        restart: throw away what is there.
        retry_errors: forget rows with an error, so that they are tried again.
        seen: called with every row, those found at the start included.

    Raises:
        ValueError: when OUT was made with other settings, naming the difference, or by something else.
        RuntimeError: when another run is writing it.
    """

    def __init__(
        self,
        path: str | Path,
        settings: dict[str, Any],
        *,
        restart: bool = False,
        retry_errors: bool = False,
        seen: Callable[[Row], None] = lambda _: None,
    ) -> None:
        self.path, self.settings, self.seen = Path(path), json.loads(json.dumps(settings)), seen
        self.format = format_of(self.path)
        self.run = self.path.with_name(f"{self.path.name}.run")
        self.found: dict[Key, Row] = {}
        self._pending: list[Row] = []
        self._written, self._took, self._good = time.monotonic(), 0.0, 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(self.run, "a+b")  # noqa: SIM115 - it stays open as long as the store
        try:
            _lock(self._file, self.run)
            if restart:
                self.path.unlink(missing_ok=True)
                self._file.truncate(0)
            self._recover(retry_errors)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not self.found and not self.path.exists():
                with contextlib.suppress(OSError):  # Windows keeps files that are open
                    self.run.unlink()  # a start that failed leaves nothing behind
            elif self._pending or not self.path.exists():
                self.publish()
        except StoreError:
            if error is None:
                raise
        finally:
            self._file.close()

    def __contains__(self, key: Key) -> bool:
        return key in self.found

    def __len__(self) -> int:
        return len(self.found)

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps a batch; it is on the disk when this returns, all of it or nothing.

        Rows that are there already are left out.

        Raises:
            StoreError: when the disk is full or fails; says what was saved.
        """
        fresh = {row.key: row for row in rows if row.key not in self.found}
        if not fresh:
            return
        rows = [replace(row, model=self.settings.get("model")) for row in fresh.values()]
        lines = json.dumps([row.as_dict() for row in rows], ensure_ascii=False)
        self._append(lines.encode() + b"\n")
        for row in rows:
            self._take(row)
        self._pending += rows
        if time.monotonic() - self._written > max(PAUSE, SHARE * self._took):
            try:
                self.publish()
            except StoreError as error:  # the rows are safe in OUT.run
                logger.warning("%s", error)
                self._written = time.monotonic()

    def publish(self) -> None:
        """Puts all rows into OUT.

        Raises:
            StoreError: when that cannot be written; the rows stay in OUT.run.
        """
        start = time.monotonic()
        try:
            self.format.replace(self.path, self._pending, self.settings)
            self._begin()
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error.strerror or error}): the {len(self._pending)} rows that are "
                f"not in it yet are safe in {self.run}. Free some space and run the same command again"
            ) from error
        self._pending = []
        self._written = time.monotonic()
        self._took = self._written - start

    # what was there ---------------------------------------------------------------------------------------------

    def _recover(self, retry_errors: bool) -> None:
        lines = list(self._lines())
        if not self._empty(lines):
            self._check(lines[0] if lines else self._settings_of_out())
        failed = 0
        rows = self.format.read(self.path) if self.path.exists() else iter(())
        for row in rows:
            failed += row.error is not None
            if not (retry_errors and row.error is not None):
                self._take(row)
        for batch in lines[1:]:
            for row in map(Row.of, batch):
                if row.key in self.found or (retry_errors and row.error is not None):
                    continue
                self._take(row)
                self._pending.append(row)
        if retry_errors and failed:
            self.format.replace(self.path, [], self.settings, keep=lambda row: row.error is None)
        if self._pending:
            self.publish()
        else:
            self._begin()

    def _empty(self, lines: list[Any]) -> bool:
        """Whether no row was ever finished, as after a start that failed; then nothing depends on the settings."""
        return not any(lines[1:]) and (not self.path.exists() or next(self.format.read(self.path), None) is None)

    def _settings_of_out(self) -> dict[str, Any]:
        known = self.format.settings(self.path)
        if known is None:
            raise ValueError(
                f"{self.path} exists, but nothing says with which settings it was made ({self.run} is missing): give "
                "another --out, or --restart to throw it away"
            )
        return known

    def _check(self, known: dict[str, Any]) -> None:
        changed = "; ".join(differences(known, self.settings))
        if changed:
            raise ValueError(
                f"{self.path} was made with other settings: {changed}. Give the same settings to go on, another --out, "
                "or --restart to throw it away"
            )

    def _take(self, row: Row) -> None:
        kept = {name: getattr(row, name) for name in REMEMBERED}
        self.found[row.key] = Row(row.path, row.question, **kept)
        self.seen(row)

    # OUT.run ----------------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[Any]:
        """The whole lines; the file is cut behind the last one."""
        self._file.seek(0)
        good = 0
        for line in self._file:
            try:
                value = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                value = None
            if value is None:
                break
            good += len(line)
            yield value
        self._file.truncate(good)
        self._good = good

    def _begin(self) -> None:
        """Starts OUT.run again: the settings, and no rows.

        The first line is the same as before, so that a kill here leaves it whole.
        """
        header = json.dumps(self.settings, sort_keys=True).encode() + b"\n"
        self._file.seek(0)
        if self._file.read(len(header)) == header:
            self._file.truncate(len(header))
            os.fsync(self._file.fileno())
            self._good = len(header)
            return
        self._file.truncate(0)
        self._good = 0
        self._append(header)
        sync_folder(self.run.parent)

    def _append(self, line: bytes) -> None:
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file.fileno(), left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._good)
            raise StoreError(
                f"{self.run} cannot be written ({error.strerror or error}): {len(self.found)} rows are saved, those of "
                "the batch at hand are not. Free some space and run the same command again; it goes on from there"
            ) from error
        self._good += len(line)


def _lock(file: IO[bytes], path: Path) -> None:
    """Refuses a second run on the same output; the lock ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RuntimeError(
            f"another run is writing {path.name.removesuffix('.run')}: wait for it, or stop it"
        ) from error
