"""The engine for long videos: each is read in windows, in the model's own process, and merged while it is read."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from holitom.corpus.reading import Video, local_copy, shared_start
from holitom.corpus.sources import Item
from holitom.corpus.with_transformers import PrefixedVideo, TransformersEngine
from holitom.cost import synchronize
from holitom.long_video import Reading
from holitom.methods.base import Method
from holitom.pipeline import Pipeline
from holitom.runtime.prefix import hold
from holitom.video.remote import LIMITS, FetchLimits


class WindowsEngine(TransformersEngine):
    """Answers about videos of any length, in the memory of one window and at a budget in tokens.

    Args:
        pipeline: model and preprocessor, of a family that can be read in windows.
        method: None: uncompressed.
        reading: window, budget and sampling, the same for every video.
        questions: asked about every video.
        max_new_tokens: the longest answer.
        limits: of fetching a video from a remote store.

    Raises:
        TypeError: when videos of the model's family cannot be read in windows.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        method: Method | None,
        reading: Reading,
        questions: Sequence[str],
        max_new_tokens: int = 128,
        limits: FetchLimits = LIMITS,
    ) -> None:
        super().__init__(pipeline, method, max_new_tokens)
        try:
            self.session.adapter.require_windows()
        except TypeError:
            self.close()
            raise
        self.reading, self.questions, self.limits = reading, tuple(questions), limits

    @torch.inference_mode()
    def encode(self, video: Video) -> PrefixedVideo:
        """See :class:`Engine`. The seconds of the vision tower and of merging count as the prefix's."""
        item: Item = video.content
        with local_copy(item, self.limits) as path:
            read = self.pipeline.compress(path, self.session.method, self.reading)
        began = time.perf_counter()
        preprocessor = self.pipeline.preprocessor
        inputs = read.inputs(self.session, preprocessor, self.questions[0])
        whole = [inputs["input_ids"][0].tolist()]
        whole += [
            preprocessor.prompt(question, len(read.tokens))["input_ids"][0].tolist() for question in self.questions[1:]
        ]
        start, rest = shared_start(inputs, whole, self.session.adapter.video_token_id)
        prefix = hold(self.session, start)
        synchronize(inputs["input_ids"].device)
        video.seconds.update({name: read.seconds[name] for name in ("decode", "preprocess")})
        video.seconds["prefix"] = (
            time.perf_counter() - began + read.seconds["vision tower"] + read.seconds["compression"]
        )
        self.together = prefix.stackable
        return PrefixedVideo(prefix, rest, read.warning)
