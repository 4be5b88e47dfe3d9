"""The engine of ``holitom caption`` on vLLM's offline class, with a method before the LLM.

vLLM batches by itself and keeps prefixes by itself: questions about one video that arrive together share its encoder
output and the blocks of its prefix. What was shared is read from its own counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holitom.corpus.costs import LayerTokens, with_costs
from holitom.corpus.engine import Counts, Reply
from holitom.corpus.reading import PromptReader, Video, behind_video
from holitom.cost import ModelShape
from holitom.integrations.vllm.config import ServingConfig, engine_arguments
from holitom.integrations.vllm.launch import architecture_of
from holitom.methods.base import Method


@dataclass(frozen=True, eq=False)
class Asked:
    """What vLLM is sent about one video.

    Args:
        frames: (T, H, W, 3) uint8.
        metadata: what vLLM's processors want to know about the video.
        prompts: for each question, with one placeholder.
        lengths: tokens of each prompt before compression.
        visual: how many of them are visual.
        warning: what is wrong with a video of which only a part could be read.
    """

    frames: Any
    metadata: dict[str, Any]
    prompts: list[str]
    lengths: list[int]
    visual: int
    warning: str | None = None


@dataclass(frozen=True)
class VllmReader(PromptReader):
    """Decodes for vLLM, which makes pixels itself, and counts the tokens of the full prompts."""

    def prepare(self, preprocessor: Any, clip: Any, video_token: int) -> Asked:
        """The prompts as text, beside the frames."""
        from holitom.video.processor import metadata_of

        first = preprocessor(self.questions[0], clip)["input_ids"][0].tolist()
        behind = [behind_video(preprocessor, clip, question, video_token) for question in self.questions]
        tails = [len(ids or ()) for _, ids in behind]
        lengths = [len(first) - tails[0] + tail for tail in tails]
        return Asked(clip.frames, metadata_of(clip), [text for text, _ in behind], lengths, first.count(video_token))


class VllmEngine:
    """Answers with vLLM in this process.

    Args:
        model: path or hub id.
        method: a method whose token count is known from a video's shape, see ``ServingConfig``.
        max_new_tokens: the longest answer.
        options: further arguments of ``vllm.LLM``.

    Raises:
        ValueError: when vLLM cannot serve the method or the model; says what works.
        ImportError: without vLLM.
    """

    together = True

    def __init__(self, model: str, method: Method, max_new_tokens: int = 128, **options: Any) -> None:
        from transformers import AutoConfig
        from vllm import LLM, SamplingParams

        arguments = engine_arguments(ServingConfig(method), architecture_of(model))
        usual = {"enable_prefix_caching": True, "limit_mm_per_prompt": {"video": 1}, "disable_log_stats": True}
        self.llm = LLM(model, **{**usual, **arguments, **options})
        self.sampling = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        self._shape = ModelShape.known(AutoConfig.from_pretrained(model))
        self._dtype = self.llm.llm_engine.model_config.dtype

    def close(self) -> None:
        """Ends the engine."""
        del self.llm

    def encode(self, video: Video) -> Asked:
        """Nothing to be done before the questions: vLLM encodes a video when the first of them comes."""
        asked: Asked = video.content
        return asked

    def answer(self, rows: Sequence[tuple[Any, int]], shared: Sequence[bool]) -> list[Reply]:
        """See :class:`holitom.corpus.engine.Engine`; what was shared is what vLLM found in its prefix cache."""
        requests = [
            {
                "prompt": asked.prompts[number],
                "multi_modal_data": {"video": [(asked.frames, {**asked.metadata, "do_sample_frames": False})]},
            }
            for asked, number in rows
        ]
        outputs = self.llm.generate(requests, self.sampling, use_tqdm=False)
        return [
            Reply(output.outputs[0].text.strip(), self._count(asked, number, output))
            for (asked, number), output in zip(rows, outputs, strict=True)
        ]

    def _count(self, asked: Asked, number: int, output: Any) -> Counts:
        prompt, entered = asked.lengths[number], len(output.prompt_token_ids)
        gone, cached = prompt - entered, output.num_cached_tokens or 0
        plain = Counts(prompt, asked.visual, asked.visual - gone)
        if self._shape is None:
            return plain
        depth = self._shape.depth
        ran = LayerTokens.of([entered] * depth, [plain.visual_tokens_out] * depth, [cached] * depth)
        full = LayerTokens.of([prompt] * depth, [asked.visual] * depth, [cached + gone if cached else 0] * depth)
        return with_costs(plain, ran, full, self._shape, self._dtype)
