"""The same run on Ray Data: groups of videos stream through a decoding task and an actor that holds the model.

Ray does what a scheduler does: it places tasks and actors, holds back decoding when the actors fall behind, moves
what was decoded, restarts an actor that died and repeats its task. The rows come back here, into the same store.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from holitom.corpus.engine import EngineFactory
from holitom.corpus.reading import Failure, Reader, Video, attempt, use_cores
from holitom.corpus.rows import Key, Row
from holitom.corpus.run import Plan, answer_group
from holitom.corpus.scratch import Scratch
from holitom.corpus.sources import Item
from holitom.corpus.store import Store
from holitom.extras import require


@dataclass(frozen=True)
class _Task:
    """A group, those of its rows that are finished, and its videos once they are read."""

    group: list[Item]
    found: dict[Key, Row]
    videos: list[Video | Failure]


def run_on_ray(
    plan: Plan,
    make: EngineFactory,
    store: Store,
    stop: Any = False,
    done: Callable[[], None] = lambda: None,
    *,
    address: str | None = None,
    actors: int = 1,
) -> None:
    """Answers everything that is not in the store yet.

    A group whose tasks die for good (a file that takes its decoder down with it) is tried again video by video; a
    video that still does not come back becomes rows with an error.

    Args:
        plan: what is to be done.
        make: makes the engine, in each actor.
        store: gets the rows.
        stop: as in :func:`holitom.corpus.run.run`.
        done: as in :func:`holitom.corpus.run.run`.
        address: of a cluster; None: Ray as it is running in this process, or started here for this run.
        actors: copies of the model, each with a GPU where the cluster has any.

    Raises:
        ImportError: without Ray.
        StoreError: when the output cannot be written any more.
    """
    require("ray", "a run on Ray", "'holitom[ray]'")
    import ray

    with _connected(ray, address):
        _pass(plan, plan.left(store.found), make, store, stop, done, actors)
        left = [[item] for group in plan.left(store.found) for item in plan.unread(group, store.found)]
        if left and not stop:
            _pass(plan, left, make, store, stop, done, actors)
        if stop:
            return
    for item in plan.unread(plan.items, store.found):
        missing = [question for question in plan.questions if (item.path, question) not in store.found]
        why = "the processes that read it or answered died each time; the file may crash its decoder"
        store.add([Row(item.path, question, error=why) for question in missing])
        done()


def _pass(
    plan: Plan,
    todo: Sequence[list[Item]],
    make: EngineFactory,
    store: Store,
    stop: Any,
    done: Callable[[], None],
    actors: int,
) -> None:
    """Sends groups through; those that fail are missing afterwards."""
    import ray

    if not todo:
        return
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    tasks = [{"task": pickle.dumps(_Task(group, _of(group, plan, store.found), []))} for group in todo]
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    reader = make.reader(plan.questions, plan.frames)
    stream = (
        ray.data.from_items(tasks, override_num_blocks=len(tasks))
        .map(_Read(replace(plan, items=plan.items[:1]), reader).read, num_cpus=1, max_retries=1)
        .map(
            _Answer,
            fn_constructor_args=(replace(plan, items=plan.items[:1]), make),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=gpus,
            num_cpus=0 if gpus else 0.5,  # other needs than those of reading: so the two stages stay apart
        )
    )
    for row in stream.iter_rows():
        for rows in pickle.loads(row["rows"]):
            store.add(rows)
        done()
        if stop:
            return


def _of(group: Sequence[Item], plan: Plan, found: dict[Key, Row]) -> dict[Key, Row]:
    keys = [(item.path, question) for item in group for question in plan.questions]
    return {key: found[key] for key in keys if key in found}


@dataclass(frozen=True)
class _Read:
    """The first stage."""

    plan: Plan
    reader: Reader

    def read(self, row: dict[str, Any]) -> dict[str, Any]:
        """Reads the videos of a group, as a task on any core of the cluster."""
        task: _Task = pickle.loads(row["task"])
        with Scratch():
            self.reader.load()
            use_cores()
            videos = [attempt(self.reader, item) for item in self.plan.unread(task.group, task.found)]
        return {"task": pickle.dumps(replace(task, videos=videos), protocol=5)}


class _Answer:
    """The second stage: an actor that holds the model."""

    def __init__(self, plan: Plan, make: EngineFactory) -> None:
        self.plan, self.engine = plan, make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answers a group."""
        task: _Task = pickle.loads(row["task"])
        batches = answer_group(self.plan, task.group, self.engine, iter(task.videos), task.found)
        return {"rows": pickle.dumps(list(batches))}


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Ray as it runs already, or from here to the end of the block."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
