"""What an attached session adds to a decode step, counted in operations on tensors, not timed."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from matrix import some
from models import llava_onevision, padded, prompt, video
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, StaticCache

from holitom import HoliTom

LAYERS = 28
WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero")
METHODS = {"outer": HoliTom(retention=0.25, layer=None), "inner": HoliTom(retention=0.25, layer=18)}
ROWS = {
    "one row": [prompt(6)],
    "four equal rows": [prompt(6)] * 4,
    "four unequal rows": [
        prompt(6),
        prompt(6, seed=1, after=9),
        prompt(6, seed=2, before=7),
        prompt(6, seed=3, after=2),
    ],
}


class Counted(TorchDispatchMode):
    """Counts operations, and those that read a value back to the host."""

    def __init__(self):
        super().__init__()
        self.total, self.names = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.total += 1
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@cache
def model():
    return llava_onevision(layers=LAYERS)


def step(rows, method, count, static=False):
    """One decode step behind a prompt, under ``count``, which is a context manager."""
    inputs = padded(rows)
    videos = video(6) if len({tuple(row) for row in rows}) == 1 else video(6, count=len(rows))
    if len(videos) < len(rows):
        videos = videos.repeat(len(rows), 1, 1, 1, 1)
    config = model().get_decoder().config
    room = inputs["input_ids"].shape[1] + 2
    kept = StaticCache(config=config, max_cache_len=room) if static else DynamicCache(config=config)
    model()(**inputs, pixel_values_videos=videos, use_cache=True, past_key_values=kept)
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(rows), 1, dtype=torch.long)], 1)
    padding = {} if bool(mask.all()) else {"attention_mask": mask}
    given = {"input_ids": torch.ones(len(rows), 1, dtype=torch.long), **padding}
    for again in range(2):  # transformers sets up hooks of its own at first calls
        with count if again else torch.inference_mode():
            model()(**given, past_key_values=kept, position_ids=mask.cumsum(1)[:, -1:] - 1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        if padding:
            given["attention_mask"] = mask


@cache
def uncompressed(rows, static):
    """The operations of a step without compression."""
    counted = Counted()
    step(ROWS[rows], None, counted, static)
    return counted


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_a_decode_step_takes_at_most_eight_operations_more(name, rows, static):
    plain, compressed = uncompressed(rows, static), Counted()
    with METHODS[name](model()):
        step(ROWS[rows], METHODS[name], compressed, static)
    added = compressed.total - plain.total
    assert added <= 8
    assert added <= 0.02 * plain.total
    waits = [sum(name.split(".")[1] in WAITS for name in counted.names) for counted in (plain, compressed)]
    assert waits[1] <= waits[0]


@pytest.mark.parametrize("rows", ["one row", "four equal rows"])
@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_no_mask_reaches_a_layer_where_no_row_is_padded(name, rows):
    masks, layers = [], model().get_decoder().layers

    def note(_, args, kwargs):
        masks.append(kwargs["attention_mask"])

    hooks = [layer.self_attn.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with METHODS[name](model()):
            step(ROWS[rows], METHODS[name], torch.inference_mode())
    finally:
        for hook in hooks:
            hook.remove()
    assert len(masks) == 3 * LAYERS
    assert all(mask is None for mask in masks)


@pytest.mark.parametrize(("name", "rows"), some(product(METHODS, ROWS), 2))
@torch.inference_mode()
def test_the_profiler_counts_at_most_two_percent_more(name, rows):
    counts = []
    for method in (None, METHODS[name]):
        profiled = profile(activities=[ProfilerActivity.CPU])
        if method is None:
            step(ROWS[rows], None, profiled)
        else:
            with method(model()):
                step(ROWS[rows], method, profiled)
        counts.append(sum(event.count for event in profiled.key_averages() if event.key.startswith("aten::")))
    assert counts[1] <= 1.02 * counts[0], counts
