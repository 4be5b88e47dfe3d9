"""A folder for the temporary files of one process, which goes with it: also where that was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from typing_extensions import Self

locks: Any = import_module("fcntl") if find_spec("fcntl") else None  # on Windows killed processes leave their files
PREFIX, LOCK = "holitom-run-", ".lock"


class Scratch:
    """Within the block, this process's temporary files lie in a folder of their own, which is deleted at the end.

    A killed process cannot delete its folder. But its lock on a file in it is gone, by which :func:`clear_scratch`
    knows the folder; it is called when a block begins and ends.
    """

    def __enter__(self) -> Self:
        clear_scratch()
        self._before = tempfile.tempdir
        new = Path(tempfile.mkdtemp(prefix="holitom-new-"))
        self._lock: IO[bytes] = (new / LOCK).open("wb")
        if locks is not None:
            locks.flock(self._lock, locks.LOCK_EX)
        self.path = new.rename(new.with_name(new.name.replace("holitom-new-", PREFIX)))
        tempfile.tempdir = str(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        tempfile.tempdir = self._before
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        clear_scratch()


def clear_scratch() -> None:
    """Deletes the folders of this user's processes that were killed; not on Windows, which has no such locks."""
    if locks is None:
        return
    root = Path(tempfile.gettempdir())
    root = root.parent if root.name.startswith(PREFIX) else root
    for folder in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("r+b") as lock:
                locks.flock(lock, locks.LOCK_EX | locks.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
