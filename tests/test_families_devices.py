"""Models whose layers lie on several devices or on disk, and models that are compiled."""

from __future__ import annotations

import pytest
import torch
from families import batch, build, three_rows
from transformers import AutoModelForImageTextToText, CompileConfig

from holitom import HoliTom

METHODS = {"outer": HoliTom(retention=0.25, layer=None), "inner": HoliTom(retention=0.3, layer=3)}
STEPS = 5


def generate(model, name, **kwargs):
    inputs = batch(name, *three_rows(name))
    return model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **kwargs)[:, -STEPS:].tolist()


def spread(model):
    """A device map with every second decoder layer on disk and all else in memory."""
    [decoder] = [part for part, module in model.named_modules() if module is model.get_decoder()]
    places = {}
    for part, module in model.named_modules():
        layer = part.removeprefix(f"{decoder}.layers.")
        if layer.isdigit() and part != layer:
            places[part] = "disk" if int(layer) % 2 else "cpu"
        elif not list(module.children()) and f"{decoder}.layers." not in part:
            places[part] = "cpu"
    owned = {name: "cpu" for name, _ in model.named_parameters() if not any(name.startswith(f"{at}.") for at in places)}
    return {**places, **owned}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_layers_on_disk(name, method, tmp_path):
    model = build(name)
    with METHODS[method](model):
        want = generate(model, name)
    model.save_pretrained(tmp_path / "model")
    away = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "model", device_map=spread(model), offload_folder=tmp_path / "disk", dtype=torch.float32
    ).eval()
    away.generation_config = model.generation_config
    assert any(parameter.is_meta for parameter in away.parameters())
    plain = generate(away, name)
    with METHODS[method](away):
        assert generate(away, name) == want
    assert generate(away, name) == plain


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "decoder", "decode step"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_compiled_models(name, method, part):
    """Traced by torch.compile with hooks in place: the same answers (the backend is left out: it takes minutes)."""
    torch._dynamo.reset()
    model = build(name)
    with METHODS[method](model):
        want = generate(model, name)
    more = {}
    if part == "decode step":  # what generate() does by itself on a GPU
        more = {"cache_implementation": "static", "compile_config": CompileConfig(backend="eager", mode=None)}
        more["compile_config"]._compile_all_devices = True
    elif part == "model":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        model.get_decoder().compile(backend="eager")
    with METHODS[method](model):
        assert generate(model, name, **more) == want
