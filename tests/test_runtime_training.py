"""Training with compressed tokens: gradients flow through the merges, and checkpointing changes none of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from models import llava_onevision, padded, prompt, video, words

from holitom import HoliTom
from holitom.methods.fastv import FastV
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop

METHODS = {
    "outer": HoliTom(retention=0.25, layer=None),
    "inner": HoliTom(retention=0.3, layer=2),
    "last": FastV(layer=2),
    "coming": PyramidDrop(),
    "text": PruneVid(retention=0.5),
}
ANSWER = words(3, 40)


def gradients(method, **checkpointing):
    """The loss of an answer and the gradients of all weights."""
    model = llava_onevision().train()
    if checkpointing:
        model.gradient_checkpointing_enable(**checkpointing)
    ids = padded([[*prompt(6), *ANSWER], [*prompt(6, seed=3), *ANSWER]])
    with method(model):
        logits = model(**ids, pixel_values_videos=video(6, count=2)).logits[:, -len(ANSWER) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ANSWER * 2))
        loss.backward()
    return float(loss), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_with_checkpointing_are_those_without(name, reentrant):
    loss, want = gradients(METHODS[name])
    other, got = gradients(METHODS[name], gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    assert loss == other
    towers = {part for part in want if "vision_tower" in part}
    assert towers  # the gradient goes through the merges into what encoded the video
    assert set(want) - towers == set(got) - towers
    for part, grad in got.items():
        torch.testing.assert_close(grad, want[part], atol=1e-6, rtol=1e-4)


def test_observers_keep_no_graph():
    """What is noted of the attention, the scores and the merges is no part of what is differentiated."""
    model = llava_onevision().train()
    with METHODS["inner"](model) as session:
        model(**padded([prompt(6)]), pixel_values_videos=video(6))
    [record] = session.videos
    noted = [record.scores, record.merge.weight, record.inner[0].attention, record.inner[0].merge.weight]
    assert not any(tensor.requires_grad for tensor in noted)


def test_the_loop_of_the_page_learns():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    [loop] = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    model = llava_onevision()
    examples = [
        ({**padded([prompt(6, seed=seed)]), "pixel_values_videos": video(6, seed=seed)}, torch.tensor([[5, 17, 29]]))
        for seed in range(2)
    ]
    scope = {"model": model, "examples": examples * 25}
    exec(compile(loop, "docs/training.md", "exec"), scope)
    losses = scope["losses"]
    assert losses[-1] < 0.5 * losses[0]
