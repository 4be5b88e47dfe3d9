"""The same run on a local Ray, with an actor that is killed on the way."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torchvision_loads  # noqa: F401 - actors read this file
from corpus_clips import QUESTIONS, answers, rows_of, write_corpus
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom
from holitom.corpus import Item, Plan, PromptReader, Store, TransformersEngine, list_videos, run
from holitom.corpus.reading import Video
from holitom.pipeline import Pipeline

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'holitom[ray]'")
pytestmark = pytest.mark.ray
METHOD = HoliTom(retention=0.3)


@dataclass(frozen=True)
class Make:
    """Makes the engine; the first one that answers its second group is killed as the kernel kills, once."""

    checkpoint: str
    mark: str = ""
    frames: int | None = 8

    def __call__(self) -> TransformersEngine:
        engine = TransformersEngine(Pipeline.from_pretrained(self.checkpoint, device="cpu"), METHOD, 6)
        answer, calls = engine.answer, []

        def dying(rows, shared):
            calls.append(len(rows))
            if self.mark and len(calls) == 2 and not os.path.exists(self.mark):
                Path(self.mark).touch()
                os.kill(os.getpid(), 9)
            return answer(rows, shared)

        engine.answer = dying  # type: ignore[method-assign]
        return engine

    def reader(self, questions, frames):
        return PromptReader(self.checkpoint, tuple(questions), frames)


@dataclass(frozen=True)
class Deadly:
    """A reader that one video takes down with it."""

    inner: PromptReader

    def load(self) -> None:
        self.inner.load()

    def read(self, item: Item) -> Video:
        if item.path.endswith("clip-001.mp4"):
            os._exit(11)
        return self.inner.read(item)


@dataclass(frozen=True)
class MakeDeadly(Make):
    def reader(self, questions, frames):
        return Deadly(super().reader(questions, frames))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0))


@pytest.fixture(scope="module")
def local_ray():
    here = str(Path(__file__).parent)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 * 2**20,
        runtime_env={
            "env_vars": {"PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
        },
    )
    yield
    ray.shutdown()


def same_as_here(folder, checkpoint, clips, make):
    from holitom.corpus.with_ray import run_on_ray

    plan = Plan(list_videos(str(write_corpus(folder / "clips", clips))), QUESTIONS, frames=8, workers=0, group=8)
    engine = make("")()
    with Store(folder / "here.jsonl", {}) as store:
        run(plan, engine, make("").reader(QUESTIONS, 8), store)
    engine.close()
    mark = folder / "killed"
    with Store(folder / "ray.parquet", {}) as store:
        run_on_ray(plan, make(str(mark)), store)
    assert mark.exists(), "no actor was killed"
    rows = rows_of(folder / "ray.parquet")
    assert len(rows) == clips * len(QUESTIONS)
    assert answers(rows) == answers(rows_of(folder / "here.jsonl"))


def test_a_killed_actor_changes_nothing(tmp_path, checkpoint, local_ray):
    same_as_here(tmp_path, checkpoint, 30, lambda mark: Make(checkpoint, mark))


@pytest.mark.slow
def test_three_hundred_clips_and_a_killed_actor(tmp_path, checkpoint, local_ray):
    same_as_here(tmp_path, checkpoint, 300, lambda mark: Make(checkpoint, mark))


def test_a_video_that_kills_its_readers_costs_itself_alone(tmp_path, checkpoint, local_ray):
    from holitom.corpus.with_ray import run_on_ray

    plan = Plan(list_videos(str(write_corpus(tmp_path / "clips", 3))), QUESTIONS, frames=8, group=8)
    with Store(tmp_path / "out.jsonl", {}) as store:
        run_on_ray(plan, MakeDeadly(checkpoint), store)
    rows = rows_of(tmp_path / "out.jsonl")
    assert len(rows) == 6
    dead = [row for row in rows if row["error"]]
    assert {Path(row["path"]).name for row in dead} == {"clip-001.mp4"}
    assert all("died each time" in row["error"] for row in dead)
