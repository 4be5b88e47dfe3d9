"""Decode steps of compiled models: one graph, without breaks and without compiling again, and the same answers."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from matrix import some
from models import llava_onevision, padded, prompt, video
from torch._dynamo.utils import counters
from transformers import CompileConfig, StaticCache

from holitom import HoliTom
from holitom.runtime import lengths

NEW = 5
LONG = 12  # frames; so that a cache may be cut
ROWS = {
    "one row": [prompt(LONG)],
    "four equal rows": [prompt(LONG)] * 4,
    "four unequal rows": [
        prompt(LONG, seed=n, before=before, after=after)
        for n, (before, after) in enumerate([(3, 5), (3, 9), (7, 5), (3, 2)])
    ],
}


def method(name, layers):
    return HoliTom(retention=0.25, layer=None if name == "outer" else 2 * layers // 3)


def inputs(rows):
    videos = video(LONG, count=len(rows)) if len({tuple(row) for row in rows}) > 1 else video(LONG)
    return {**padded(rows), "pixel_values_videos": videos.expand(len(rows), -1, -1, -1, -1).contiguous()}


@cache
def model(layers=4):
    return llava_onevision(layers=layers)


def generate(used, given, **more):
    settings = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    return used.generate(**given, **settings, **more)


def compiled(**more):
    """What generate() does by itself on a GPU, without the backend, which takes minutes."""
    settings = CompileConfig(backend="eager", mode=None, **more)
    settings._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": settings}


@pytest.fixture(autouse=True)
def clean():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def one_graph():
    """All that was compiled since the test began."""
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("layers", "name", "rows"),
    [
        pytest.param(28, "inner", "four unequal rows", marks=pytest.mark.slow),
        *some([(4, name, rows) for name in ("outer", "inner") for rows in ROWS], 2, turn=1),
    ],
)
def test_generate_with_a_static_cache_compiles_one_graph_once(layers, name, rows):
    used, given = model(layers), inputs(ROWS[rows])
    with method(name, layers)(used):
        want = generate(used, given)
        whole = compiled(fullgraph=rows != "one row")  # then any break of the decode step would be an error
        got = generate(used, given, **whole)
        one_graph()
        if layers < 28:
            generate(used, given, **whole)  # with another cache
            one_graph()
    assert torch.equal(got.sequences, want.sequences)
    for mine, theirs in zip(got.logits, want.logits, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)  # queries and keys are scaled up by 20


@pytest.mark.parametrize(
    ("rows", "how"), some(product(("one row", "four unequal rows"), ("torch.compile(model)", "model.forward")), 2)
)
@torch.inference_mode()
def test_a_model_compiled_by_hand(rows, how):
    used, given = llava_onevision(), inputs(ROWS[rows])
    count, width = given["input_ids"].shape
    mask = torch.nn.functional.pad(given["attention_mask"], (0, NEW), value=1)

    def steps(called, kept):
        found = []
        for number in range(NEW):
            tokens = torch.full((count, 1), 5 + number)
            positions = mask[:, : width + number + 1].sum(1, keepdim=True) - 1
            found.append(called(input_ids=tokens, position_ids=positions, past_key_values=kept).logits)
        return torch.cat(found, 1)

    with method("inner", 4)(used):
        want = steps(used, used(**given, use_cache=True).past_key_values)
        kept = StaticCache(config=used.get_decoder().config, max_cache_len=width + NEW)
        used(**given, past_key_values=kept, use_cache=True)
        if how == "model.forward":
            called, used.forward = used, torch.compile(used.forward, backend="eager")
        else:
            called = torch.compile(used, backend="eager")
        got = steps(called, kept)
    one_graph()
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["outer", "inner"])
def test_a_static_cache_is_as_long_as_what_is_left(name, monkeypatch):
    """With room for as many new tokens as without compression; and as long as it was for the next prompt."""
    monkeypatch.setattr(lengths, "_GRAIN", 1)
    used, given = model(), inputs(ROWS["four unequal rows"])
    with torch.inference_mode():
        room = given["input_ids"].shape[1] + NEW
        kept = StaticCache(config=used.get_decoder().config, max_cache_len=room)
        plain = used(**given, past_key_values=kept, use_cache=True).logits
        kept.reset()
        with method(name, 4)(used) as session:
            used(**given, past_key_values=kept, use_cache=True)
            longest = [max(layer) for layer in zip(*(row.by_layer for row in session.prompts), strict=True)]
            assert [layer.keys.shape[2] for layer in kept.layers] == [room] * 4  # allocated before
            kept = StaticCache(config=used.get_decoder().config, max_cache_len=room)
            used(**given, past_key_values=kept, use_cache=True)
        assert [layer.keys.shape[2] - NEW for layer in kept.layers] == longest
        assert max(longest) < room // 2
        kept.reset()
        assert torch.equal(used(**given, past_key_values=kept, use_cache=True).logits, plain)


def test_a_static_cache_that_is_used_again_gives_the_same(monkeypatch):
    """Its layers have the lengths of another prompt by then, in front of the inner stage and behind it."""
    monkeypatch.setattr(lengths, "_GRAIN", 1)
    used, given, other = model(), inputs(ROWS["one row"]), inputs([prompt(LONG, seed=4)])
    other["pixel_values_videos"] = video(LONG, seed=9)
    with method("inner", 4)(used), torch.inference_mode():
        want = generate(used, other).sequences
        kept = StaticCache(config=used.get_decoder().config, max_cache_len=given["input_ids"].shape[1] + NEW)
        generate(used, given, past_key_values=kept)
        kept.reset()
        assert torch.equal(generate(used, other, past_key_values=kept).sequences, want)
