"""Worker processes: none of their deaths, stops or slow starts is a hang, and none leaves a file behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from corpus_readers import Large, Leaving, Loading, Stopping, Unloadable

from holitom.corpus import Item, Pool, Scratch, WorkerError
from holitom.corpus.reading import Failure, Video
from holitom.corpus.scratch import PREFIX

TESTS = Path(__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks as POSIX has them")

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends processes with their parent")


def items(*names: str) -> list[Item]:
    return [Item(name, name) for name in names]


def test_large_arrays_come_back_as_they_were():
    with Pool(Large(), workers=1) as pool:
        [video] = pool.read(items("a"))
    assert video.content["empty"].shape == (0, 3)
    assert np.array_equal(video.content["frames"], np.arange(30_000_000, dtype=np.uint8).reshape(100, -1))


@posix
def test_a_worker_that_stops_while_it_sends_is_given_up():
    began = time.monotonic()
    with Pool(Stopping(), workers=2, timeout=1.5) as pool:
        found = list(pool.read(items("a", "stops", "b")))
    assert [type(each) for each in found] == [Video, Failure, Video]
    assert "longer than 1.5 s" in found[1].error
    assert time.monotonic() - began < 60


@posix
def test_a_run_that_is_stopped_does_not_wait_for_a_video():
    stop: list[bool] = []
    threading.Timer(1.0, lambda: stop.append(True)).start()
    began = time.monotonic()
    with Pool(Stopping(), workers=1, timeout=300.0) as pool:
        assert list(pool.read(items("stops", "a"), stop)) == []
    assert time.monotonic() - began < 60


def test_loading_does_not_count_against_the_limit_of_a_video():
    with Pool(Loading(seconds=2.5), workers=1, timeout=1.5) as pool:
        assert [type(each) for each in pool.read(items("a", "b"))] == [Video, Video]


def test_what_cannot_be_loaded_ends_the_run_and_not_each_video():
    for workers in (0, 1):
        with (
            Pool(Unloadable(), workers=workers) as pool,
            pytest.raises((WorkerError, OSError), match="there is no model here"),
        ):
            list(pool.read(items("a", "b")))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("holitom"))


@posix
def test_killed_workers_leave_no_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Scratch() as scratch, Pool(Leaving(), workers=2, timeout=1.5) as pool:
        found = list(pool.read(items("a", "dies", "b", "sleeps")))
        assert [type(each) for each in found] == [Video, Failure, Video, Failure]
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == scratch.path
        assert len([name for name in left_in(tmp_path) if name != scratch.path.name]) <= 2, "of workers that live"
    assert left_in(tmp_path) == []


@posix
def test_the_next_start_clears_what_a_killed_process_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import time\nfrom holitom.corpus.scratch import Scratch\nimport tempfile\n"
        "with Scratch():\n    tempfile.mkdtemp()\n    print('there', flush=True)\n    time.sleep(60)"
    )
    lives, dies = (
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    for process in (lives, dies):
        assert process.stdout is not None
        process.stdout.readline()
    try:
        dies.kill()
        dies.wait()
        (tmp_path / f"{PREFIX}somebody-else").mkdir()  # without a lock it is not ours to judge
        assert len(left_in(tmp_path)) == 3
        with Scratch():
            assert len(left_in(tmp_path)) == 3  # the living one's, ours, and the folder without a lock
        assert len(left_in(tmp_path)) == 2
    finally:
        lives.send_signal(signal.SIGKILL)
        lives.wait()


@posix
@pytest.mark.parametrize("doing", ["sleeps", pytest.param("stops", marks=linux)])
def test_workers_end_with_the_process_that_started_them(tmp_path, doing):
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from corpus_readers import Leaving\nfrom holitom.corpus import Item, Pool\n"
        "if __name__ == '__main__':\n"
        "    pool = Pool(Leaving(), workers=1)\n"
        f"    stream = pool.read([Item('a', 'a'), Item({doing!r}, '')])\n"
        "    print(next(stream).content['pid'], flush=True)\n    next(stream)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.5)  # the worker has begun with the next video
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return  # dead, and nobody has asked for its exit code yet
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent by 10 s")
