"""A video, a question, an answer, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from holitom.cost import StageTimer
from holitom.generation import generate, on_device_of
from holitom.long_video import CompressedVideo, Progress, Reading, compress_video
from holitom.methods.base import Method
from holitom.methods.baselines import Uncompressed
from holitom.methods.registry import parse, with_tower
from holitom.models import adapter_for, config_of_part
from holitom.models.placement import input_device
from holitom.recommendation import Recommendation
from holitom.runtime import Session, Summary, question_for
from holitom.video import Clip, Source, VideoStream, read_video
from holitom.video.prepare import Preprocessor

STAGES = ("decode", "preprocess", "vision tower", "compression", "LLM prefill")
_OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said, and what it took.

    Attributes:
        text: the answer; of several, the first.
        texts: all answers, of ``num_return_sequences=``.
        tokens: how many tokens were generated, of the longest answer.
        seconds: by stage, see ``STAGES``; "LLM prefill" ends with the first token.
        tokens_per_second: generated tokens after the first one, per second; None for fewer than two.
        summary: tokens, FLOPs and KV-cache bytes.
        warning: what is wrong with the video, where only a part of it could be read.
        output: what ``generate()`` returned, scores and all, with ``return_dict_in_generate=True``; else None.
    """

    text: str
    texts: tuple[str, ...]
    tokens: int
    seconds: dict[str, float]
    tokens_per_second: float | None
    summary: Summary
    warning: str | None = None
    output: Any = None

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the video file to the first token."""
        return sum(self.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "answer": self.text,
            "answers": list(self.texts),
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
        recommended: the method of its ``holitom.json``, see :class:`~holitom.recommendation.Recommendation`, or None.
    """

    def __init__(self, model: Any, preprocessor: Preprocessor, recommended: Method | None = None) -> None:
        adapter_for(model)  # refuses an unknown family now, not after decoding
        self.model, self.preprocessor, self.recommended = model, preprocessor, recommended

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        trust_remote_code: bool = False,
        **model_kwargs: Any,
    ) -> Pipeline:
        """Loads a checkpoint by path or hub id.

        Args:
            name: of a folder, or a hub id.
            device: "cpu", "cuda", "cuda:1", ... or "auto" for all devices; None: a GPU where there is one.
            dtype: "auto": the checkpoint's, but bfloat16 instead of float16 on a CPU, which computes that slowly.
            trust_remote_code: run code that lies beside the weights.
            model_kwargs: further arguments of transformers' ``from_pretrained()``: ``revision``, ``token``,
                ``attn_implementation``, ``quantization_config``, ``device_map``, ...

        Raises:
            ValueError: when the checkpoint is of an unsupported family, or arguments exclude each other.
            OSError: when there is no such checkpoint.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText

        if device is not None and "device_map" in model_kwargs:
            raise ValueError(f"device={device!r} and device_map= both say where the model goes: give one of them")
        hub = {key: model_kwargs[key] for key in _OF_THE_HUB if key in model_kwargs}
        preprocessor = Preprocessor.from_pretrained(name, **hub)
        config = model_kwargs["config"] = config_of_part(
            model_kwargs.get("config") or AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **hub)
        )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto" and device == "cpu":
            stored = getattr(config, "dtype", None)
            dtype = torch.bfloat16 if stored in (torch.float16, "float16") else "auto"
        quantized = model_kwargs.get("quantization_config") or getattr(config, "quantization_config", None)
        if device == "auto" or quantized:  # quantised weights go to their device while they are loaded
            model_kwargs.setdefault("device_map", "auto" if device == "auto" else {"": device})
        load, own = AutoModelForImageTextToText.from_pretrained, getattr(Recommendation.beside(name), "method", None)
        model = load(name, dtype=dtype, trust_remote_code=trust_remote_code, **model_kwargs).eval()
        return cls(model if "device_map" in model_kwargs else model.to(device), preprocessor, own)

    def ask(
        self,
        video: Source | Clip,
        question: str,
        method: Method | str | None = None,
        *,
        tower: Method | str | None = None,
        frames: int | None = None,
        window: float | None = None,
        tokens: int | None = None,
        fps: float | None = None,
        max_new_tokens: int = 128,
        streamer: Any = None,
        progress: Progress | None = None,
        **generation: Any,
    ) -> Answer:
        """Answers a question about a video, or about several.

        Args:
            video: a decoded clip, or what :func:`holitom.video.read_video` takes; a list of these (a list of pictures
                is one video) are several.
            question: about it.
            method: or its text; ``pipeline.recommended`` is the checkpoint's own; None: uncompressed.
            tower: a method inside the vision tower in front of it, ``"renewal"``; None: the tower computes everything.
            frames: how many to sample; None: as many as the checkpoint asks for (of a clip: all), or by ``fps``.
            fps: frames to sample per second instead.
            window: read the video in windows of so many seconds, see :class:`holitom.long_video.Reading`, by default
                1 frame per second.
            tokens: read the video in windows (60 seconds by default), and keep so many visual tokens of it.
            max_new_tokens: the longest answer.
            streamer: a streamer of transformers, or a function called with each new piece of text.
            progress: called while a video is read in windows.
            generation: further arguments of ``generate()``: ``do_sample``, ``num_beams``, ``num_return_sequences``,
                ``return_dict_in_generate``, ...

        Raises:
            holitom.video.VideoError: when the video cannot be read.
            ValueError: when an argument is out of its range, naming it.
            TypeError: when the video is none of these.
        """
        options = {"max_new_tokens": max_new_tokens, "streamer": streamer, **generation}
        method = with_tower(_method(method), tower)
        reading = Reading.of(window, tokens, fps, frames)
        if reading is not None:
            if isinstance(video, Clip):
                video = video.sample(frames, fps)
            return self.answer(self.compress(video, method, reading, progress=progress), question, **options)
        timer = StageTimer(input_device(self.model))
        with timer.stage("decode"):
            several: Any = video if _are_several(video) else [video]
            clips = [self._read(each, frames, fps) for each in several]
        with timer.stage("preprocess"):
            inputs = on_device_of(self.model, self.preprocessor(question, *clips))
        warnings = [clip.warning for clip in clips if clip.warning]
        asked = question_for(method, self.preprocessor.tokenizer, inputs["input_ids"], question)
        with Session(method, self.model, timer=timer, question=asked) as session:
            return self._generate(session, inputs, timer, "; ".join(warnings) or None, **options)

    def compress(
        self,
        video: Source | Clip | VideoStream,
        method: Method | str | None = None,
        reading: Reading | None = None,
        *,
        progress: Progress | None = None,
    ) -> CompressedVideo:
        """What is left of a video, for any number of questions: see :func:`holitom.long_video.compress_video`."""
        return compress_video(self.model, self.preprocessor, video, _method(method), reading, progress=progress)

    def answer(
        self,
        compressed: CompressedVideo,
        question: str,
        *,
        max_new_tokens: int = 128,
        streamer: Any = None,
        **generation: Any,
    ) -> Answer:
        """Answers a question about a video that has been compressed. The seconds of :meth:`compress` are in its times.

        Args:
            compressed: what :meth:`compress` gave.
            question: about it.
            max_new_tokens: the longest answer.
            streamer: as for :meth:`ask`.
            generation: as for :meth:`ask`.
        """
        timer = StageTimer(input_device(self.model))
        options = {"max_new_tokens": max_new_tokens, "streamer": streamer, **generation}
        with Session(compressed.method, self.model, timer=timer) as session:
            with timer.stage("preprocess"):
                inputs = compressed.inputs(session, self.preprocessor, question)
            return self._generate(session, inputs, timer, compressed.warning, compressed.seconds, **options)

    def _generate(
        self,
        session: Session,
        inputs: dict[str, Any],
        timer: StageTimer,
        warning: str | None,
        before: dict[str, float] | None = None,
        *,
        streamer: Any,
        **options: Any,
    ) -> Answer:
        """Generates in an open session. ``before``: seconds that were spent by stage before this call."""
        tokenizer = self.preprocessor.tokenizer
        if callable(streamer) and not hasattr(streamer, "put"):
            streamer = _TextStreamer(tokenizer, streamer)
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise TypeError(f"streamer must be a function or have put() and end(), got {type(streamer).__name__}")
        made = generate(session, inputs, streamer=streamer, **options)
        here, past = timer.totals(), before or {}
        seconds = {name: here.get(name, 0.0) + past.get(name, 0.0) for name in STAGES[:-1]}
        inside = here.get("vision tower", 0.0) + here.get("compression", 0.0)
        seconds["LLM prefill"] = max(0.0, made.first - inside)
        texts = tuple(text.strip() for text in tokenizer.batch_decode(made.tokens, skip_special_tokens=True))
        later = made.tokens.shape[1] - 1
        return Answer(
            text=texts[0],
            texts=texts,
            tokens=made.tokens.shape[1],
            seconds=seconds,
            tokens_per_second=later / (made.seconds - made.first) if later > 0 else None,
            summary=session.summary(),
            warning=warning,
            output=None if isinstance(made.output, torch.Tensor) else made.output,
        )

    def _read(self, video: Source | Clip, frames: int | None, fps: float | None) -> Clip:
        if isinstance(video, Clip):
            return video.sample(frames, fps)
        asked = self.preprocessor.frames if frames is None and fps is None else frames
        return read_video(video, asked, fps=fps, size=self.preprocessor.shrink)


def _are_several(video: Any) -> bool:
    """Whether a list holds videos: what is no picture, of which a list would be one video."""

    def picture(each: Any) -> bool:
        if isinstance(each, str | PathLike):
            return Path(each).suffix.lower() in Image.registered_extensions()
        return isinstance(each, Image.Image) or getattr(each, "ndim", 0) == 3

    return isinstance(video, list | tuple) and len(video) > 0 and not all(map(picture, video))


def _method(method: Method | str | None) -> Method:
    return parse(method) if isinstance(method, str) else method or Uncompressed()


class _TextStreamer:
    """A streamer that hands new text to a function; ``generate()`` gives it the prompt first."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], None]) -> None:
        self.tokenizer, self.tell = tokenizer, tell
        self.seen, self.text = False, ""
        self.ids: list[int] = []

    def put(self, ids: torch.Tensor) -> None:
        """Takes the prompt (1, L), then one token (1,) at a time."""
        if not self.seen:
            self.seen = True
            return
        self.ids += ids.tolist()
        self._tell(final=False)

    def end(self) -> None:
        """Tells what was held back."""
        self._tell(final=True)

    def _tell(self, final: bool) -> None:
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        if len(text) > len(self.text) and (final or not text.endswith("\ufffd")):  # an unfinished character waits
            self.tell(text[len(self.text) :])
            self.text = text
