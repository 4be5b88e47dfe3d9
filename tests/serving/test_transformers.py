"""The same video on the same weights: vLLM's path and transformers' path make the same Merge and say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import HYBRID, STOCK, TIMED, answers, clip, engine, metadata, prompt, said
from PIL import Image
from serving_checkpoints import build_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.compressor import Compressor
from holitom.models import tower_name

RETENTION = 0.25
METHODS = ("holitom", "visionzip", "fastvid", "evs", "vidcom2", "flashvid", "vcast", "divprune", "uniformframes")
FRAMES = (8, 8)
KERNELS = 1e-3  # by how much the two libraries' kernels move a log-probability through sharpened weights
BFLOAT16 = 0.05  # and the precision that linear attention has on a CPU, where vLLM knows no other
WITHOUT_CONTENT = ("uniformframes",)  # what content decides can be decided otherwise in another precision


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
            if name in HYBRID and method not in WITHOUT_CONTENT:
                continue
            # all keep as many tokens, so one engine does for all: its tap shows what the neediest of them asks for
            given = ServingConfig.of(method, retention=RETENTION).method
            config = ServingConfig(given.for_tower(llm.apply_model(lambda model: tower_name(model.config))[0]))
            llm.apply_model(
                lambda model, config=config: setattr(model, "compressor", Compressor(config, model.compressor.tap))
            )
            merges.clear()
            answer = answers(llm, prompt(name, *parts(number)))[0]
            done[method] = answer, list(merges)
    return done


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    loaded = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    loaded.generation_config.eos_token_id = None  # vLLM is told to go on, too
    return loaded


def with_transformers(
    name: str, checkpoint: Path, model: Any, method: Any, given: tuple[Any, ...], text: str | None = None
) -> tuple[list[torch.Tensor], Any]:
    """Log-probabilities of each step and session of transformers' own path; ``text`` in place of a chat's."""
    asked = prompt(name, *given)["prompt"] if text is None else text
    videos = [clip(*part[1:]) for part in given if part[0] == "video"]
    images = [Image.fromarray(clip(1, part[1])[0]) for part in given if part[0] == "image"]
    more: dict[str, Any] = {}
    if name != "llava_onevision":
        known = [
            {key: value for key, value in metadata(len(each)).items() if key != "do_sample_frames"} for each in videos
        ]
        more = {"video_metadata": known, "do_sample_frames": False}
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = processor(text=[asked], images=images or None, videos=videos, return_tensors="pt", **more)
    with method(model) as session:
        out = model.generate(
            **inputs,
            max_new_tokens=6,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return [step[0].log_softmax(-1) for step in out.logits], session


@pytest.mark.parametrize("method", METHODS)
def test_the_same_merge_and_the_same_answer(name: str, checkpoint: Path, model: Any, served: dict, method: str):
    if method not in served:
        pytest.skip("in bfloat16 a choice by content may differ; the tower is Qwen3-VL's")
    answer, merges = served[method]
    tolerance = BFLOAT16 if name in HYBRID else KERNELS
    config = ServingConfig.of(method, retention=RETENTION)
    likely, session = with_transformers(name, checkpoint, model, config.method, parts(METHODS.index(method)))
    assert len(merges) == len(session.videos) == 2
    for got, video in zip(merges, session.videos, strict=True):
        assert torch.equal(got.target, video.merge.target)
        assert torch.equal(got.anchor, video.merge.anchor)
        torch.testing.assert_close(got.weight, video.merge.weight)
        assert got.outputs == config.token_count(video.frames, video.grid)
    if name == "qwen2_5_vl":  # vLLM lets text after a video begin behind its last second, transformers behind its rows
        return
    for token, chance, step in zip(*said(answer), likely, strict=True):
        assert abs(chance - float(step[token])) < tolerance
        best = step.topk(2)
        if token != int(best.indices[0]):
            assert float(best.values[0] - step[token]) < tolerance  # a tie, after which both go on differently
            break


def test_placeholders_are_the_exact_count_and_the_text_of_a_video(name: str, model: Any, served: dict):
    video_token = getattr(model.config, "video_token_id", None) or model.config.video_token_index
    marks = 2 * 4 * (len("<0.2 seconds>") + 2)  # of 4 steps
    text = {"llava_onevision": 2, "qwen2_5_vl": 0}.get(name, marks)
    for answer, merges in served.values():
        placeholders = answer.prompt_token_ids.count(video_token)
        assert placeholders == sum(merge.outputs for merge in merges) + text
        assert sum(merge.outputs for merge in merges) == sum(merge.inputs for merge in merges) // 4


BY_SHAPE = ServingConfig.of("uniformframes", retention=RETENTION)
ORDERS = {
    "a video and nothing else": (("video", 8, 3),),
    "two videos without text": (("video", 8, 4), ("video", 6, 5)),
    "text, an image, two videos": ("see ", ("image", 3), ("video", 6, 6), " and this ", ("video", 12, 7), " ?"),
}


def bare(name: str, order: str) -> dict[str, Any]:
    """A prompt without the words of a chat around it."""
    given = prompt(name, *ORDERS[order])
    return {**given, "prompt": given["prompt"].removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]}


@pytest.fixture(scope="module")
def positions(name: str, checkpoint: Path) -> dict[str, torch.Tensor]:
    """By order the positions (3, L) of a prompt whose chunks end among the times of frames."""
    if name not in TIMED:
        pytest.skip("its text goes on elsewhere than in transformers, or its positions have one axis")
    found: list[torch.Tensor] = []

    def note(model: Any) -> None:
        recompute = model.recompute_mrope_positions

        def noting(*arguments: Any, **named: Any) -> Any:
            done = recompute(*arguments, **named)
            found.append(done[1])
            return done

        model.recompute_mrope_positions = noting

    last = {}
    with engine(checkpoint, name, BY_SHAPE, max_num_batched_tokens=112, enable_prefix_caching=False) as llm:
        llm.apply_model(note)
        for order in ORDERS:
            found.clear()
            answers(llm, bare(name, order))
            last[order] = found[-1]
    return last


@pytest.mark.parametrize("order", ORDERS)
def test_every_token_of_a_prompt_has_its_place(
    name: str, checkpoint: Path, model: Any, positions: dict[str, torch.Tensor], order: str
):
    """Also where a video is the first of a prompt, or follows another at once."""
    seen: list[torch.Tensor] = []
    rotary = model.model.language_model.rotary_emb
    handle = rotary.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    with_transformers(name, checkpoint, model, BY_SHAPE.method, ORDERS[order], bare(name, order)["prompt"])
    handle.remove()
    assert torch.equal(positions[order].cpu(), seen[0][:, 0])
