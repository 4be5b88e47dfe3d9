"""The same video on the same weights: vLLM's path and transformers' path make the same Merge and say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import PLACEHOLDERS, STOCK, answers, clip, engine, metadata, prompt, said
from PIL import Image
from serving_checkpoints import build_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.compressor import Compressor

RETENTION = 0.25
METHODS = ("holitom", "visionzip", "fastvid", "evs", "vidcom2", "flashvid", "vcast", "divprune", "uniformframes")
FRAMES = (8, 8)


@pytest.fixture(scope="module", params=STOCK)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(name, tmp_path_factory.mktemp(name))


def parts(number: int) -> tuple[Any, ...]:
    """A prompt of its own for each method: vLLM keeps what it has encoded."""
    return (
        "look ",
        ("video", FRAMES[0], 10 * number + 1),
        " then ",
        ("image", 3),
        " and ",
        ("video", FRAMES[1], 10 * number + 2),
        " ?",
    )


@pytest.fixture(scope="module")
def served(name: str, checkpoint: Path) -> dict[str, tuple[Any, list[Any]]]:
    """By method vLLM's answer and the maps of its two videos."""
    done = {}
    with (
        engine(checkpoint, name, ServingConfig.of("visionzip", retention=RETENTION)) as llm,
        pytest.MonkeyPatch.context() as patch,
    ):
        merges: list[Any] = []
        merge = Compressor.merge

        def noting(self: Compressor, *arguments: Any) -> Any:
            merges.append(merge(self, *arguments))
            return merges[-1]

        patch.setattr(Compressor, "merge", noting)
        for number, method in enumerate(METHODS):
            # all keep as many tokens, so one engine does for all: its tap shows what the neediest of them asks for
            config = ServingConfig.of(method, retention=RETENTION)
            llm.apply_model(
                lambda model, config=config: setattr(model, "compressor", Compressor(config, model.compressor.tap))
            )
            merges.clear()
            answer = answers(llm, prompt(name, *parts(number)))[0]
            done[method] = answer, list(merges)
    return done


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


def with_transformers(name: str, checkpoint: Path, model: Any, method: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tokens, log-probabilities and session of transformers' own path."""
    asked = prompt(name, *given)["prompt"]
    videos = [clip(*part[1:]) for part in given if part[0] == "video"]
    images = [Image.fromarray(clip(1, part[1])[0]) for part in given if part[0] == "image"]
    more: dict[str, Any] = {}
    if name != "llava_onevision":
        known = [
            {key: value for key, value in metadata(len(each)).items() if key != "do_sample_frames"} for each in videos
        ]
        more = {"video_metadata": known, "do_sample_frames": False}
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = processor(text=[asked], images=images, videos=list(videos), return_tensors="pt", **more)
    with method(model) as session:
        out = model.generate(
            **inputs,
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, -6:].tolist()
    chances = [float(step[0].log_softmax(-1)[token]) for step, token in zip(out.logits, tokens, strict=True)]
    return tokens, chances, session


@pytest.mark.parametrize("method", METHODS)
def test_the_same_merge_and_the_same_answer(name: str, checkpoint: Path, model: Any, served: dict, method: str):
    answer, merges = served[method]
    config = ServingConfig.of(method, retention=RETENTION)
    tokens, chances, session = with_transformers(name, checkpoint, model, config.method, parts(METHODS.index(method)))
    assert len(merges) == len(session.videos) == 2
    for got, video in zip(merges, session.videos, strict=True):
        assert torch.equal(got.target, video.merge.target)
        assert torch.equal(got.anchor, video.merge.anchor)
        torch.testing.assert_close(got.weight, video.merge.weight)
        assert got.outputs == config.retained(video.frames, video.grid)
    assert said(answer)[0] == tokens
    np.testing.assert_allclose(said(answer)[1], chances, atol=1e-3)  # other kernels, sharpened weights


def test_the_prompt_shrinks_by_the_exact_count(name: str, served: dict):
    config = ServingConfig.of("holitom", retention=RETENTION)
    answer, merges = served["holitom"]
    with_videos = len(answer.prompt_token_ids)
    assert sum(merge.outputs for merge in merges) == sum(
        config.retained(merge.inputs // 12, (3, 4)) for merge in merges
    )
    assert with_videos < sum(merge.inputs for merge in merges) + len(PLACEHOLDERS[name][0])
