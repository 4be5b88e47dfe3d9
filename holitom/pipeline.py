"""A video file, a question, an answer, and what it cost: one call on top of all rooms below."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holitom.cost import StageTimer, synchronize
from holitom.long_video import CompressedVideo, Progress, Reading, compress_video
from holitom.methods.base import Method
from holitom.models import adapter_for
from holitom.runtime import Session, Summary
from holitom.video import Clip, Source, VideoStream, read_video
from holitom.video.prepare import Preprocessor, to_device

STAGES = ("decode", "preprocess", "vision tower", "compression", "LLM prefill")


@dataclass(frozen=True)
class Uncompressed(Method):
    """Every visual token stays: what a method is compared with."""

    name = "uncompressed"
    exact_count = True

    def with_token_count(self, count: int, frames: int, grid: tuple[int, int]) -> Uncompressed:
        """This method, if that is as many as there are."""
        if count < self.token_count(frames, grid):
            raise ValueError(
                f"a budget of {count} tokens is less than the {self.token_count(frames, grid)} of the video: name a "
                "method that is to meet it"
            )
        return self


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said, and what it took.

    Args:
        text: the answer. tokens: how many tokens were generated.
        seconds: by stage, see ``STAGES``; "LLM prefill" ends with the first token.
        tokens_per_second: generated tokens after the first one, per second; None for fewer than two.
        summary: tokens, FLOPs and KV-cache bytes.
        warning: what is wrong with the video, where only a part of it could be read.
    """

    text: str
    tokens: int
    seconds: dict[str, float]
    tokens_per_second: float | None
    summary: Summary
    warning: str | None = None

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the video file to the first token."""
        return sum(self.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "answer": self.text,
            "tokens": self.tokens,
            "seconds": {**self.seconds, "time to first token": self.time_to_first_token},
            "decode_tokens_per_second": self.tokens_per_second,
            "warning": self.warning,
            **self.summary.as_dict(),
        }


class Pipeline:
    """A model and its preprocessor.

    Args:
        model: a transformers video LLM of a supported family.
        preprocessor: of the same checkpoint.
    """

    def __init__(self, model: Any, preprocessor: Preprocessor) -> None:
        adapter_for(model)  # refuses an unknown family now, not after decoding
        self.model, self.preprocessor = model, preprocessor

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        attention: str | None = None,
    ) -> Pipeline:
        """Loads a checkpoint by path or hub id.

        Args:
            device: "cpu", "cuda", "cuda:1", ... or "auto" for all devices; None: a GPU where there is one.
            dtype: "auto": the checkpoint's, but bfloat16 instead of float16 on a CPU, which computes that slowly.
            attention: "sdpa", "eager", "flash_attention_2", ...; None: the model's default.

        Raises:
            ValueError, OSError: when there is no such checkpoint or it is of an unsupported family.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText

        preprocessor = Preprocessor.from_pretrained(name)
        config = AutoConfig.from_pretrained(name)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto" and device == "cpu":
            stored = getattr(config, "dtype", None)
            dtype = torch.bfloat16 if stored in (torch.float16, "float16") else "auto"
        options: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
        if attention is not None:
            options["attn_implementation"] = attention
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **options).eval()
        if device != "auto":
            model = model.to(device)
        return cls(model, preprocessor)

    def ask(
        self,
        video: Source | Clip,
        question: str,
        method: Method | None = None,
        *,
        frames: int | None = None,
        window: float | None = None,
        tokens: int | None = None,
        fps: float | None = None,
        max_new_tokens: int = 128,
        streamer: Callable[[str], None] | None = None,
        progress: Progress | None = None,
        **generation: Any,
    ) -> Answer:
        """Answers a question about a video.

        Args:
            video: a decoded clip, or what :func:`holitom.video.read_video` takes.
            method: None: uncompressed.
            frames: how many to sample; None: as many as the checkpoint asks for, or by ``fps``.
            fps: frames to sample per second instead, see :func:`holitom.video.read_video`.
            window: read the video in windows of so many seconds, see :class:`holitom.long_video.Reading`, by default
                1 frame per second.
            tokens: read the video in windows (60 seconds by default), and keep so many visual tokens of it.
            progress: told how far reading in windows is.
            max_new_tokens: the longest answer. generation: further arguments of ``generate()``.
            streamer: called with each new piece of text.

        Raises:
            holitom.video.VideoError: when the video cannot be read.
        """
        options = {"max_new_tokens": max_new_tokens, "streamer": streamer, **generation}
        reading = Reading.of(window, tokens, fps, frames)
        if reading is not None:
            return self.answer(self.compress(video, method, reading, progress=progress), question, **options)
        timer = StageTimer(self._device)
        with timer.stage("decode"):
            clip = video if isinstance(video, Clip) else self._read(video, frames, fps)
        with timer.stage("preprocess"):
            inputs = to_device(self.preprocessor(question, clip), self._device, next(self.model.parameters()).dtype)
        with Session(method or Uncompressed(), self.model, timer=timer) as session:
            return self._generate(session, inputs, timer, clip.warning, **options)

    def compress(
        self,
        video: Source | Clip | VideoStream,
        method: Method | None = None,
        reading: Reading | None = None,
        *,
        progress: Progress | None = None,
    ) -> CompressedVideo:
        """What is left of a video, for any number of questions: see :func:`holitom.long_video.compress_video`."""
        return compress_video(
            self.model, self.preprocessor, video, method or Uncompressed(), reading, progress=progress
        )

    def answer(
        self,
        compressed: CompressedVideo,
        question: str,
        *,
        max_new_tokens: int = 128,
        streamer: Callable[[str], None] | None = None,
        **generation: Any,
    ) -> Answer:
        """Answers a question about a video that has been compressed. The seconds of :meth:`compress` are in its times.

        Args:
            compressed: what :meth:`compress` gave. Others as for :meth:`ask`.
        """
        timer = StageTimer(self._device)
        options = {"max_new_tokens": max_new_tokens, "streamer": streamer, **generation}
        with Session(compressed.method, self.model, timer=timer) as session:
            with timer.stage("preprocess"):
                inputs = compressed.inputs(session, self.preprocessor, question)
            return self._generate(session, inputs, timer, compressed.warning, compressed.seconds, **options)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def _generate(
        self,
        session: Session,
        inputs: dict[str, Any],
        timer: StageTimer,
        warning: str | None,
        before: dict[str, float] | None = None,
        *,
        max_new_tokens: int,
        streamer: Callable[[str], None] | None,
        **generation: Any,
    ) -> Answer:
        """Generates in an open session. ``before``: seconds that were spent by stage before this call."""
        model, device = self.model, self._device
        watch = _Watch(self.preprocessor.tokenizer, device, streamer)
        with torch.inference_mode():
            synchronize(device)
            start = time.perf_counter()
            ids = model.generate(
                **inputs, streamer=watch, **{"do_sample": False, "max_new_tokens": max_new_tokens, **generation}
            )
            synchronize(device)
            end = time.perf_counter()
            summary = session.summary()
        produced = ids[0, inputs["input_ids"].shape[1] :]
        here, past = timer.totals(), before or {}
        first = watch.first or end
        inside = here.get("vision tower", 0.0) + here.get("compression", 0.0)
        seconds = {name: here.get(name, 0.0) + past.get(name, 0.0) for name in STAGES[:-1]}
        seconds["LLM prefill"] = max(0.0, first - start - inside)
        return Answer(
            text=self.preprocessor.tokenizer.decode(produced, skip_special_tokens=True).strip(),
            tokens=len(produced),
            seconds=seconds,
            tokens_per_second=(len(produced) - 1) / (end - first) if len(produced) > 1 else None,
            summary=summary,
            warning=warning,
        )

    def _read(self, video: Source, frames: int | None, fps: float | None) -> Clip:
        asked = self.preprocessor.frames if frames is None and fps is None else frames
        return read_video(video, asked, fps=fps, size=self.preprocessor.shrink)

    def warm_up(
        self,
        video: Source | Clip,
        method: Method | None = None,
        *,
        frames: int | None = None,
        fps: float | None = None,
    ) -> None:
        """Answers once with the method and once without, so that what a first call of this size sets up is not timed.

        Args:
            video, method, frames, fps: as in :meth:`ask`.
        """
        for each in (method, None):
            self.ask(video, "?", each, frames=frames, fps=fps, max_new_tokens=2)


class _Watch:
    """A streamer that notes when the first token is there; ``generate()`` hands it the prompt first."""

    def __init__(self, tokenizer: Any, device: torch.device, tell: Callable[[str], None] | None) -> None:
        self.tokenizer, self.device, self.tell = tokenizer, device, tell
        self.first: float | None = None
        self.seen, self.text = False, ""
        self.ids: list[int] = []

    def put(self, ids: torch.Tensor) -> None:
        """Takes the prompt (1, L), then one token (1,) at a time."""
        if not self.seen:
            self.seen = True
            return
        if self.first is None:
            synchronize(self.device)
            self.first = time.perf_counter()
        self.ids += ids.tolist()
        self._tell(final=False)

    def end(self) -> None:
        """Tells what was held back."""
        self._tell(final=True)

    def _tell(self, final: bool) -> None:
        if self.tell is None:
            return
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        if len(text) > len(self.text) and (final or not text.endswith("\ufffd")):  # an unfinished character waits
            self.tell(text[len(self.text) :])
            self.text = text
