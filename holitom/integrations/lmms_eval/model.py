"""The class that lmms-eval runs. Importing this needs lmms-eval."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm

from holitom.generation import generate, on_device_of
from holitom.integrations.lmms_eval.settings import conversation_of, cut, generation_of, method_of
from holitom.models.placement import input_device
from holitom.pipeline import Pipeline
from holitom.runtime import Session, question_for
from holitom.video import read_video
from holitom.video.chat import question_of
from holitom.video.sampling import SamplingRule


class Holitom(lmms):  # type: ignore[misc]
    """Any video LLM that holitom supports, with any of its methods, as a chat model of lmms-eval.

    With several processes (``accelerate launch``) each has a GPU and a model of its own, and lmms-eval deals out the
    questions, as for its other models.

    Args:
        pretrained: path or hub id of a checkpoint.
        method: a method's name or text form; "none" for the uncompressed model.
        frames: of each video; None: what the checkpoint asks for.
        sampling: where frames are taken, a rule of :func:`holitom.video.sample_indexes`; the default is the rule of
            lmms-eval's own models, which published results were made with.
        batch_size: conversations at a time.
        max_batch_size: not used; lmms-eval passes it.
        device: as for :meth:`holitom.Pipeline.from_pretrained`.
        dtype: as for it.
        attn_implementation: as for it.
        settings: the method's settings, ``retention=0.1`` for example.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        method: str = "holitom",
        frames: int | None = None,
        sampling: SamplingRule = "endpoints",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.method = method_of(method, settings)
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            device = str(self.accelerator.device)
        elif device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device={device} was asked for and torch sees no GPU: give --device cpu")
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.pipeline = Pipeline.from_pretrained(
            pretrained, device=device, dtype=dtype, attn_implementation=attn_implementation
        )
        self._device = input_device(self.pipeline.model)
        self.batch_size = int(batch_size)
        self.frames = frames or self.pipeline.preprocessor.frames
        # The questions about one video mostly follow each other: it is decoded once for them.
        read = functools.partial(read_video, size=self.pipeline.preprocessor.shrink)
        self._read = functools.lru_cache(maxsize=8)(functools.partial(read, frames=self.frames, rule=sampling))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.pipeline.model

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return self.pipeline.preprocessor.tokenizer

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answer all requests, those with equal generation settings in batches, in their order."""
        alike: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[repr(sorted(request.args[2].items()))].append(number)
        answers: list[Any] = [None] * len(requests)
        with tqdm(total=len(requests), disable=self.rank != 0, desc="holitom") as bar:
            for numbers in alike.values():
                for start in range(0, len(numbers), self.batch_size):
                    some = numbers[start : start + self.batch_size]
                    for number, answer in zip(some, self._answer([requests[n] for n in some]), strict=True):
                        answers[number] = answer
                    bar.update(len(some))
        return answers

    def _answer(self, requests: list[Any]) -> list[Any]:
        conversations = []
        for request in requests:
            _, doc_to_messages, _, doc_id, task, split = request.args
            conversations.append(conversation_of(doc_to_messages(self.task_dict[task][split][doc_id]), self._read))
        arguments, until = generation_of(requests[0].args[2])
        model = self.pipeline.model
        inputs = on_device_of(model, self.pipeline.preprocessor.batch(conversations))
        texts = [question_of(conversation) for conversation in conversations]
        asked = question_for(self.method, self.tokenizer, inputs["input_ids"], texts)
        with Session(self.method, model, question=asked) as session:
            produced = generate(session, inputs, **arguments).tokens
        texts = self.tokenizer.batch_decode(produced, skip_special_tokens=True)
        found = []
        for request, text, row in zip(requests, texts, produced, strict=True):
            said = cut(text, until)
            self.cache_hook.add_partial("generate_until", (request.args[0], request.args[2]), said)
            length = (
                int((row != self.tokenizer.pad_token_id).sum()) if self.tokenizer.pad_token_id is not None else len(row)
            )
            found.append(GenerationResult(text=said, token_counts=TokenCounts(output_tokens=length)))
        return found

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not offered: compressed prompts are shorter than their ids, and the video tasks generate.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("holitom answers tasks that generate (generate_until), not ones of log-likelihood")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not offered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("holitom answers tasks of one round (generate_until)")
