"""Placeholders: how many a video gets in the prompt, decided by its shape alone. Importing this needs vLLM."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptUpdateDetails

from holitom import __version__
from holitom.integrations.vllm.config import ServingConfig
from holitom.integrations.vllm.metrics import count_video
from holitom.integrations.vllm.request import FIELD, for_request, take_settings, to_tensor, token_count
from holitom.integrations.vllm.start import admit_settings

_ASKED: ContextVar[ServingConfig | None] = ContextVar("_ASKED", default=None)
"""What the request asks for that this thread processes; None: nothing of its own."""


@dataclass(frozen=True)
class VideoShape:
    """What decides the number of a video's placeholders.

    Args:
        frames: T.
        grid: (h, w) of a frame after pooling.
        text: tokens beside the T * h * w patches (newlines, timestamps), which stay.
        places: positions that the video takes, where these follow its seconds; else 0.
    """

    frames: int
    grid: tuple[int, int]
    text: int = 0
    places: int = 0

    @property
    def patches(self) -> int:
        """T * h * w."""
        return self.frames * self.grid[0] * self.grid[1]


@dataclass
class VideoPlaceholders(PromptUpdateDetails):  # type: ignore[misc]
    """A video's placeholders; keeps the counts, because vLLM caches them together with the encoded video."""

    before: int = 0
    after: int = 0
    places: int = 0


class CompressedVideos:
    """Mixed into a stock processor: its images are untouched, its videos get as many placeholders as the method keeps.

    All of a video's placeholders are the video token, also where timestamps will stand: they come with the encoder's
    output, because how many tokens stand between two of them depends on the content.
    """

    info: Any
    _dummy = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        admit_settings()

    def video_shape(self, number: int, items: Any, kwargs: Mapping[str, Any]) -> VideoShape:
        """The shape of the ``number``-th video of a prompt; ``kwargs`` are the processed videos."""
        raise NotImplementedError

    @property
    def video_token(self) -> int:
        """The id of the placeholder token."""
        raise NotImplementedError

    @functools.cached_property
    def server(self) -> ServingConfig:
        """The server's config."""
        return ServingConfig.of_hf_config(self.info.get_hf_config())

    @property
    def serving(self) -> ServingConfig:
        """The config of the request that is processed."""
        return _ASKED.get() or self.server

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As in vLLM, with the settings that a request brings."""
        asked, rest = take_settings(inputs.hf_processor_mm_kwargs)
        config = None if asked is None else for_request(self.server, asked)
        before = _ASKED.set(None if config == self.server else config)
        try:
            return super().apply(  # type: ignore[misc]
                dataclasses.replace(inputs, hf_processor_mm_kwargs=rest), *args, **kwargs
            )
        finally:
            _ASKED.reset(before)

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Sequence[Any]:
        asked, videos = _ASKED.get(), out_mm_kwargs.get("video", [])
        if asked is not None and videos:
            shared = MultiModalFieldConfig.shared("video", len(videos), keep_on_cpu=True)
            for item, element in zip(videos, shared.build_elems(FIELD, to_tensor(asked)), strict=True):
                item[FIELD] = element

        def placeholders(number: int) -> VideoPlaceholders:
            shape = self.video_shape(number, mm_items, out_mm_kwargs)
            after = token_count(self.server, self.serving, shape.frames, shape.grid)
            ids = [self.video_token] * (after + shape.text)
            return VideoPlaceholders(ids, before=shape.patches, after=after, places=shape.places)

        stock: Sequence[Any] = super()._get_prompt_updates(  # type: ignore[misc]
            mm_items=mm_items, hf_processor_mm_kwargs=hf_processor_mm_kwargs, out_mm_kwargs=out_mm_kwargs
        )
        return [
            dataclasses.replace(update, replacement=placeholders) if update.modality == "video" else update
            for update in stock
        ]

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """What encoded videos are known by: also by the method, because caches and stores are shared between servers.

        The settings stand where vLLM hashes a video's options, so names that clients give (uuids) are covered too.
        """
        options = dict(inputs.hf_processor_mm_kwargs)
        method = {**self.serving.settings(), "holitom": __version__}
        options["videos_kwargs"] = {**(options.get("videos_kwargs") or {}), "holitom": method}
        return super()._get_mm_hashes(dataclasses.replace(inputs, hf_processor_mm_kwargs=options))  # type: ignore[misc]

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> Any:
        contents = [update.content for updates in mm_res.prompt_updates.get("video", []) for update in updates]
        videos = [content for content in contents if isinstance(content, VideoPlaceholders)]
        self.check_places(sum(video.places for video in videos))
        applied = super()._maybe_apply_prompt_updates(mm_items, mm_res)  # type: ignore[misc]
        if not self._dummy:
            for video in videos:
                count_video(video.before, video.after)
        return applied

    def check_places(self, places: int) -> None:
        """Raises a ValueError where a prompt's videos take more positions than the model has."""

    def get_dummy_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """The inputs that vLLM measures its memory with; they count for nothing."""
        self._dummy = True
        try:
            return super().get_dummy_mm_inputs(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._dummy = False
