"""What a page or a picture needs to know of some methods at work on one clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holitom.evaluation import label
from holitom.merge import Merge
from holitom.methods.base import Method, Need
from holitom.methods.baselines import Uncompressed
from holitom.models.towers import TowerRecord
from holitom.ops.similarity import neighbour_cosine
from holitom.pipeline import Answer, Pipeline
from holitom.runtime import VideoRecord
from holitom.tokens import VideoTokens
from holitom.video import Clip, read_video

MOST_STAGES = 5  # a page shows: of a method that merges in front of every layer, stages in between are left out


@dataclass(frozen=True, eq=False)
class Stage:
    """Where the patches of a video are at one point on their way.

    Args:
        layer: the decoder layer in front of which this was reached; None: on entering the LLM.
        merge: of the T * N patches. An anchor of -1 is a token that is no patch (a newline); it may have taken some in.
        attention: (T * N,) what the last prompt token paid the token anchored at a patch, NaN where none is; or None.
    """

    layer: int | None
    merge: Merge
    attention: Tensor | None = None

    @property
    def label(self) -> str:
        """The stage in words."""
        return "entering the LLM" if self.layer is None else f"from layer {self.layer} on"


@dataclass(frozen=True, eq=False)
class Run:
    """One method on the clip.

    Args:
        name: the method and its settings, as the command line writes them.
        answer: the model's, with times and costs.
        record: what became of the video.
        stages: the same step by step.
        threshold: the similarity above which a position is static, for methods with one.
        gains: the tokens that merging each segment over time saves, for methods with segments and a threshold.
        tower: of the T * h * w patches of the vision tower's own grid to the rows that it computed; None where each
            patch had its own.
    """

    name: str
    answer: Answer
    record: VideoRecord
    stages: tuple[Stage, ...]
    threshold: float | None = None
    gains: tuple[int, ...] | None = None
    tower: Merge | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """Several methods on one clip, and the clip itself. T frames as the LLM sees them, of N = h * w positions.

    Args:
        clip: the sampled frames.
        question: what was asked.
        model: the checkpoint's name.
        grid: (h, w).
        similarity: (T-1, N) cosine of a position with itself one frame later.
        scores: (T, N) how much attention each patch receives in the vision tower, or None where the family has none.
        full: the uncompressed answer.
        runs: one for each method.
    """

    clip: Clip
    question: str
    model: str
    grid: tuple[int, int]
    similarity: Tensor
    scores: Tensor | None
    full: Answer
    runs: tuple[Run, ...]

    @property
    def frames(self) -> int:
        """T, the frames that the LLM sees; a model may make one of several sampled ones."""
        return self.similarity.shape[0] + 1

    @property
    def tower(self) -> TowerRecord | None:
        """The vision tower's grid and how it is pooled; None where no method works inside it."""
        return next((run.record.tower for run in self.runs if run.tower is not None), None)

    @property
    def shown(self) -> list[int]:
        """(T,) the sampled frame that stands for each."""
        return shown_frames(len(self.clip), self.frames)

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """(T, H, W, 3)."""
        return self.clip.frames[self.shown]

    @property
    def times(self) -> list[float]:
        """(T,) seconds."""
        return [float(self.clip.times[index]) for index in self.shown]


def shown_frames(sampled: int, frames: int) -> list[int]:
    """Which of the sampled frames stands for each of the frames that the LLM sees: the first of its group."""
    return [min(sampled - 1, number * sampled // frames) for number in range(frames)]


def trace(
    pipeline: Pipeline,
    video: str | Path | Clip,
    question: str,
    methods: Sequence[Method],
    *,
    frames: int | None = None,
    max_new_tokens: int = 32,
    model: str = "",
    on_status: Callable[[str], None] | None = None,
    on_answer: Callable[[int, str | Answer], None] | None = None,
) -> Trace:
    """Asks once without compression and once with each method, and keeps what can be looked at.

    A first call, not timed, notes similarities and scores and warms the model up.

    Args:
        pipeline: model and preprocessor.
        video: a path, or what :func:`~holitom.read_video` returned.
        question: what is asked.
        methods: to compare with the uncompressed answer, at least one.
        frames: to sample; None: what the checkpoint asks for.
        max_new_tokens: longest answer, in tokens.
        model: its name, for the page.
        on_status: called with what is being done.
        on_answer: called with each new piece of an answer, and with the answer when it is complete; 0 is the
            uncompressed one, the methods count from 1.

    Raises:
        ValueError: without a method.
        holitom.video.VideoError: when the video cannot be read.
    """
    if not methods:
        raise ValueError("there is nothing to show without a method: give at least one")
    on_status = on_status or (lambda _: None)

    def ask(number: int, method: Method | None) -> Answer:
        streamer = None if on_answer is None else partial(on_answer, number)
        answer = pipeline.ask(clip, question, method, max_new_tokens=max_new_tokens, streamer=streamer)
        if on_answer is not None:
            on_answer(number, answer)
        return answer

    asked = pipeline.preprocessor.frames
    number = frames or (asked if isinstance(asked, int) else None)
    clip = video if isinstance(video, Clip) else read_video(video, number)
    on_status("looking at the clip")
    watch = _Watch()
    pipeline.ask(clip, question, watch, max_new_tokens=1)
    seen = watch.seen[0]
    on_status("asking without compression")
    full = ask(0, None)
    runs = []
    for number, method in enumerate(methods, 1):
        on_status(f"asking with {label(method)}")
        runs.append(run_of(method, ask(number, method), seen.similarity))
    return Trace(clip, question, model, seen.grid, seen.similarity, seen.scores, full, tuple(runs))


def run_of(method: Method, answer: Answer, similarity: Tensor) -> Run:
    """One method's run from its answer; ``similarity`` is the clip's, (T-1, N)."""
    record = answer.summary.prompts[0].videos[0]
    threshold = getattr(method.stage("before"), "threshold", None)
    gains = None
    if record.merge.spans is not None and threshold is not None:
        gains = segment_gains(similarity, record.merge.spans, threshold)
    tower = None if record.tower is None or record.tower.merge is None else record.tower.patches
    return Run(label(method), answer, record, tuple(stages_of(record)), threshold, gains, tower)


def segment_gains(similarity: Tensor, spans: Sequence[tuple[int, int]], threshold: float) -> tuple[int, ...]:
    """The objective of the segmentation (HoliTom, section 3.2) by segment: (frames - 1) * static positions."""
    links = similarity > torch.tensor(threshold, dtype=torch.float32, device="cpu")
    return tuple((last - first) * int(links[first:last].all(0).sum()) if last > first else 0 for first, last in spans)


def stages_of(record: VideoRecord) -> list[Stage]:
    """A record's maps of the patches: on entering the LLM, and in front of each layer that merged.

    Stages whose record does not say where its tokens stand are left out, and so are all behind them.
    """
    now = record.merge.to("cpu")
    stages = [Stage(None, now)]
    for inner in record.inner:
        if inner.place is None:
            break
        place, merge = inner.place.cpu(), inner.merge.to("cpu")
        now = now.compose(_arrange(now.anchor, place)).compose(merge)
        now = Merge(now.target, now.weight, place[merge.anchor], now.shares, record.merge.spans)
        stages.append(Stage(inner.layer, now, _on_patches(inner.attention, place, record)))
    return stages


def some(stages: Sequence[Stage], most: int = MOST_STAGES) -> list[Stage]:
    """At most so many stages: the first, the last, and others evenly between."""
    if len(stages) <= most:
        return list(stages)
    return [stages[round(number * (len(stages) - 1) / (most - 1))] for number in range(most)]


def _arrange(anchor: Tensor, place: Tensor) -> Merge:
    """The map from outputs in a method's order, (M,) anchors, to tokens in the order of the sequence, (V,) places."""
    slots = torch.arange(len(place), device="cpu") if len(place) == len(anchor) else (place >= 0).nonzero()[:, 0]
    target = torch.empty_like(anchor)
    target[anchor.argsort(stable=True)] = slots[place[slots].argsort(stable=True)]
    return Merge(target, torch.ones(len(anchor), dtype=torch.float32, device="cpu"), torch.zeros_like(place))


def _on_patches(attention: Tensor | None, place: Tensor, record: VideoRecord) -> Tensor | None:
    if attention is None:
        return None
    spread = torch.full((record.merge.inputs,), torch.nan, dtype=torch.float32, device="cpu")
    patch = place >= 0
    spread[place[patch]] = attention.float().cpu()[patch]
    return spread


@dataclass(frozen=True)
class _Seen:
    similarity: Tensor
    scores: Tensor | None
    grid: tuple[int, int]


@dataclass(frozen=True)
class _Watch(Uncompressed):
    """Keeps every token and notes what methods get to see."""

    name: ClassVar[str] = "watch"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})

    seen: list[_Seen] = field(default_factory=list)

    def merge_video(self, video: VideoTokens) -> Merge:
        scores = None if video.scores is None else video.scores.float().cpu()
        self.seen.append(_Seen(neighbour_cosine(video.features).cpu(), scores, video.grid))
        return super().merge_video(video)

    def settings(self) -> dict[str, object]:
        return {}
