"""A video file in, the visual tokens of its prompt out, in the memory of one window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holitom.cost import StageTimer
from holitom.edges import Shares
from holitom.long_video.memory import trim_heap
from holitom.long_video.reading import Reading
from holitom.long_video.windows import Budget, Windows
from holitom.merge import Merge
from holitom.methods.base import Method
from holitom.methods.segmenting import Segmenting
from holitom.models.base import VideoLayout, adapter_for
from holitom.models.placement import dtype_of, input_device
from holitom.models.towers import TowerRecord
from holitom.runtime import Session, layouts_of, with_layouts
from holitom.runtime.question import refuse_question
from holitom.tokens import VideoTokens
from holitom.video import Clip, Source, VideoStream, open_video
from holitom.video.prepare import Preprocessor, to_device

Progress = Callable[[int, int, int], None]
"""Called with the frames that are done, those there are, and the tokens kept so far."""


@dataclass(frozen=True)
class WindowRecord:
    """What became of one window.

    Args:
        first: its first frame, counted in sampled frames.
        last: its last frame.
        start: seconds at which the first is shown.
        end: seconds at which the last is shown.
        redundant: its tokens that merging over time saves.
        tokens: those that were kept.
    """

    first: int
    last: int
    start: float
    end: float
    redundant: int
    tokens: int


@dataclass(frozen=True, eq=False)
class CompressedVideo:
    """What is left of a video: tokens that stand in a prompt in place of all its patches, ready for any question.

    Args:
        tokens: (K + newlines, D) on the CPU, in the order of the prompt, in the model's dtype.
        merge: the map of all T * N patches to the K tokens, on the CPU.
        frames: T.
        grid: (h, w).
        method: the method, as it was set for the whole video.
        windows: the windows, in order.
        times: (T,) float64, seconds at which each sampled frame is shown.
        at_stake: the redundant tokens that borders between windows cost, at most.
        seconds: by stage.
        source: the path.
        warning: what is wrong with a video of which only a part could be read.
        tower: what ran in the vision tower, whose stage merges within each batch of frames; None where not known.
    """

    tokens: Tensor
    merge: Merge
    frames: int
    grid: tuple[int, int]
    method: Method
    windows: tuple[WindowRecord, ...]
    times: Tensor
    at_stake: int
    seconds: dict[str, float]
    source: str
    warning: str | None = None
    tower: TowerRecord | None = None

    @property
    def newlines(self) -> int:
        """Tokens that are no patches, at the end."""
        return len(self.tokens) - self.merge.outputs

    @property
    def layout(self) -> VideoLayout:
        """How the tokens lie in a prompt."""
        place = torch.arange(self.merge.outputs + self.newlines, device="cpu")
        place[self.merge.outputs :] = -1
        return VideoLayout(self.frames, self.grid, place, merged=self.merge, tower=self.tower)

    def inputs(self, session: Session, preprocessor: Preprocessor, question: str) -> dict[str, Any]:
        """The arguments of ``model.generate()`` or ``model()`` that ask a question about this video.

        Args:
            session: an open session of this video's method on the model, in which the call is then made.
            preprocessor: of the same checkpoint.
            question: what is asked.
        """
        device = input_device(session.model)
        prompt = to_device(preprocessor.prompt(question, len(self.tokens)), device)
        encoded = with_layouts(session.adapter.pack(self.tokens.to(device)), [self.layout])
        return {**prompt, "mm_encoder_outputs": {session.adapter.modality: encoded}}


def compress_video(
    model: Any,
    preprocessor: Preprocessor,
    video: Source | Clip | VideoStream,
    method: Method,
    reading: Reading | None = None,
    *,
    progress: Progress | None = None,
) -> CompressedVideo:
    """Reads a video of any length in one pass, encodes it a few frames at a time and merges it window by window.

    At no time are there more frames in memory than a window and a batch. What grows with the video is what is left of
    it, and 12 bytes for each patch that say where it went.

    Args:
        model: a transformers video LLM.
        preprocessor: of the same checkpoint.
        video: what :func:`holitom.video.open_video` takes; or a clip or a stream, whose frames are taken as they are.
        method: its stage before the LLM merges; its stage inside works when the question is asked.
        reading: window, budget and sampling.
        progress: called after each batch of frames.

    Raises:
        holitom.video.VideoError: when the video cannot be read.
        TypeError: when videos of the model's family cannot be read in windows, naming those that can.
        ValueError: when the budget is smaller than the number of windows, or the method cannot meet one; or for a
            method that looks at the question, which is not asked yet, or at what it merged inside the vision tower; or
            where positions are to be kept, unless that is the method's default, in whose place they are compact here.
    """
    reading = reading or Reading()
    adapter_for(model).require_windows()
    timer = StageTimer(input_device(model))
    with timer.stage("decode"):
        if isinstance(video, Clip):
            stream = VideoStream.of(video)
        elif isinstance(video, VideoStream):
            stream = video
        else:
            stream = open_video(video, fps=reading.fps, frames=reading.frames, size=preprocessor.shrink)
    work = _Work(model, preprocessor, method, reading, stream, timer)
    with work.session, torch.inference_mode():
        for number, clip in enumerate(_timed(stream.chunks(min(reading.batch, work.window)), timer)):
            work.take(clip, first=not number)
            if progress is not None:
                progress(work.frames, len(stream), work.kept)
        work.finish()
        if progress is not None:
            progress(work.frames, work.frames, work.kept)
    return work.result()


class _Work:
    """The state of one pass over a video."""

    def __init__(
        self, model: Any, preprocessor: Preprocessor, method: Method, reading: Reading, stream: VideoStream, timer: Any
    ) -> None:
        self.preprocessor, self.reading = preprocessor, reading
        self.stream, self.timer = stream, timer
        refuse_question(method, "but a video that is read in windows is merged before one is asked")
        if method.stage("tower") is not None and method.stage("tower") is method.stage("before"):
            raise ValueError(
                f"{method.name} chooses tokens by what it merged inside the vision tower, which windows cut apart: "
                "read the video at once, or put a method for the tower alone in front of another one (renewal|holitom)"
            )
        before = method.stage("before")
        if method.positions == "original" and before is not None and type(before).positions != "original":
            raise ValueError(
                "positions='original' cannot be kept for a video that is read in windows: its prompt holds the tokens "
                "that are left and nothing in between. Leave positions out, or read the video at once"
            )
        self.session = Session(method.with_positions("compact"), model, timer=timer)  # also where a default is another
        self.method = self.session.method
        self.device, self.dtype = input_device(model), dtype_of(model)
        self.window = reading.window_frames(stream.rate)
        self.frames = self.kept = 0
        self.parts: list[tuple[Merge, Tensor]] = []
        self.records: list[WindowRecord] = []
        self.times: list[Tensor] = []
        self.towers: list[TowerRecord | None] = []
        self.budget: Budget | None = None

    def take(self, clip: Clip, first: bool) -> None:
        """Encodes the frames of a clip, and merges every window that they complete."""
        with self.timer.stage("preprocess"):
            pixels = to_device(self.preprocessor.pixels(clip), self.device, self.dtype)
        adapter = self.session.adapter
        output = getattr(adapter.base, adapter.encoder)(**pixels, return_dict=True)
        [layout], rows = layouts_of(output) or [], adapter.unpack(output)
        place = layout.place.to(rows.device)
        video = layout.tokens(rows[place >= 0][place[place >= 0].argsort()])
        if first:
            self._begin(video, rows[place < 0].cpu())
        self.frames += video.frames
        self.towers.append(layout.tower)
        self.times.append(torch.from_numpy(clip.times))
        for window, redundant in self.windows.push(video):
            self._merge(window, redundant, last=False)
            trim_heap()

    def _begin(self, video: VideoTokens, newlines: Tensor) -> None:
        """What can be settled once the size of a frame is known."""
        self.grid, self.newlines, expected = video.grid, newlines, len(self.stream)
        if self.reading.tokens is not None:
            total = expected * video.positions
            tokens = min(self.reading.tokens - len(newlines), total)
            if tokens < 1:
                raise ValueError(f"tokens={self.reading.tokens} leaves none beside the {len(newlines)} after a video")
            self.method = self.method.with_token_count(tokens, expected, video.grid)
        self.windows = Windows(self.method, self.window)
        if self.reading.tokens is not None:
            self.budget = Budget(tokens, expected, video.positions, self.windows.shortest)

    def finish(self) -> None:
        """Merges what is left."""
        window, redundant = self.windows.finish()
        self._merge(window, redundant, last=True)

    def _merge(self, window: VideoTokens, redundant: int, last: bool) -> None:
        method = self.method
        with self.timer.stage("compression"):
            if self.budget is not None:
                need = window.frames * window.positions - redundant
                count = self.budget.share(window.frames, need, last)
                method = method.stage("before") or method
                fit = method.for_window if isinstance(method, Segmenting) else method.with_token_count
                method = fit(count, window.frames, window.grid)
            merge = method.merge_video(window)
            self.parts.append((merge.to("cpu"), merge.apply(window.features.flatten(0, 1)).cpu()))
        start = self.records[-1].last + 1 if self.records else 0
        times, end = torch.cat(self.times), start + window.frames - 1
        self.times = [times]
        self.records.append(WindowRecord(start, end, float(times[start]), float(times[end]), redundant, merge.outputs))
        self.kept += merge.outputs

    def result(self) -> CompressedVideo:
        """What is left of the video."""
        stream, seconds = self.windows.stream, self.timer.totals()
        return CompressedVideo(
            tokens=torch.cat([*(tokens for _, tokens in self.parts), self.newlines]),
            merge=joined([merge for merge, _ in self.parts]),
            frames=self.frames,
            grid=self.grid,
            method=self.method,
            windows=tuple(self.records),
            times=self.times[0],
            at_stake=0 if stream is None else stream.at_stake,
            seconds={name: seconds.get(name, 0.0) for name in ("decode", "preprocess", "vision tower", "compression")},
            source=self.stream.source,
            warning=self.stream.warning,
            tower=self._tower(),
        )

    def _tower(self) -> TowerRecord | None:
        """What ran in the vision tower in all calls together."""
        known = [record for record in self.towers if record is not None]
        if len(known) < len(self.towers):
            return None
        merges = [
            (stages[0][0], joined([merge.to("cpu") for _, merge in stages]))
            for stages in zip(*(record.merges for record in known), strict=True)
        ]
        rows = [sum(counts) for counts in zip(*(record.rows for record in known), strict=True)]
        pairs = [sum(counts) for counts in zip(*(record.pairs for record in known), strict=True)]
        projected = [
            len(record.place) * record.frames if record.projected is None else record.projected for record in known
        ]
        through_rows = any(record.projected is not None for record in known)
        return replace(
            known[0],
            frames=sum(record.frames for record in known),
            merges=merges,
            rows=rows,
            count=partial(list, pairs),
            projected=sum(projected) if through_rows else None,
        )


def joined(merges: list[Merge]) -> Merge:
    """One map for videos that follow each other: S and M are the sums of theirs. The maps are on one device."""
    target, anchor, shares, spans = [], [], [], list[tuple[int, int]]()
    sources = outputs = 0
    for merge in merges:
        target.append(torch.where(merge.target >= 0, merge.target + outputs, merge.target))
        anchor.append(merge.anchor + sources)
        if merge.shares is not None:
            more = merge.shares
            shares.append((more.source + sources, more.output + outputs, more.weight))
        if merge.spans is not None:
            frames = spans[-1][1] + 1 if spans else 0
            spans += [(first + frames, last + frames) for first, last in merge.spans]
        sources, outputs = sources + merge.inputs, outputs + merge.outputs
    return Merge(
        torch.cat(target),
        torch.cat([merge.weight for merge in merges]),
        torch.cat(anchor),
        Shares(*(torch.cat(part) for part in zip(*shares, strict=True))) if shares else None,
        tuple(spans) or None,
    )


def _timed(clips: Iterator[Clip], timer: Any) -> Iterator[Clip]:
    while True:
        with timer.stage("decode"):
            clip = next(clips, None)
        if clip is None:
            return
        yield clip
