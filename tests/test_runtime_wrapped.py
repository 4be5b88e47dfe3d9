"""Models as people wrap them: found inside, or refused with a word about what to pass."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from models import llava_onevision, padded, prompt, video
from torch import nn

from holitom import HoliTom
from holitom.models import find_model

METHODS = {"outer": HoliTom(retention=0.25, layer=None), "inner": HoliTom(retention=0.3, layer=2)}


@pytest.fixture(scope="module")
def model():
    return llava_onevision()


def inputs(frames=6):
    return {**padded([prompt(frames)]), "pixel_values_videos": video(frames)}


def generate(model, **more):
    return model.generate(**inputs(), max_new_tokens=4, do_sample=False, **more)[:, -4:].tolist()


@pytest.fixture(scope="module")
def wanted(model):
    found = {}
    for name, method in METHODS.items():
        with method(model), torch.no_grad():
            found[name] = generate(model), model(**inputs()).logits
    return found


class Pipeline:
    """What a transformers pipeline is to us: an object with a model."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrap", [nn.DataParallel, Pipeline, lambda model: Pipeline(nn.DataParallel(model))])
def test_the_model_is_found_inside(model, wanted, wrap, method):
    wrapped = wrap(model)
    assert find_model(wrapped) is model
    with METHODS[method](wrapped) as session, torch.no_grad():
        assert session.model is model
        assert generate(model) == wanted[method][0]
        if isinstance(wrapped, nn.DataParallel):
            assert torch.equal(wrapped(**inputs()).logits, wanted[method][1])


@pytest.mark.parametrize("method", METHODS)
def test_distributed_data_parallel(model, wanted, method, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        with METHODS[method](wrapped), torch.no_grad():
            assert torch.equal(wrapped(**inputs()).logits, wanted[method][1])
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("method", METHODS)
def test_peft(wanted, method):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(llava_onevision(), peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    wrapped.generation_config = wrapped.base_model.model.generation_config
    with METHODS[method](wrapped), torch.no_grad():
        assert generate(wrapped) == wanted[method][0]
        torch.testing.assert_close(wrapped(**inputs()).logits, wanted[method][1])


def test_what_holds_no_model_is_refused(model):
    with pytest.raises(TypeError, match="no adapter for Linear"):
        find_model(nn.Linear(2, 2))
    around = SimpleNamespace()
    around.model = SimpleNamespace(model=around)
    with pytest.raises(TypeError, match=r"found no supported model in SimpleNamespace .*pass the transformers model"):
        METHODS["outer"](around)
    with pytest.raises(TypeError, match=r"looked at Pipeline, Linear\): pass the transformers model itself"):
        find_model(Pipeline(nn.Linear(2, 2)))
    several = nn.DataParallel(nn.Linear(2, 2))
    several.module, several.device_ids = model, [0, 1]
    with pytest.raises(TypeError, match="use DistributedDataParallel"):
        find_model(several)


def test_a_model_under_a_session_cannot_be_copied(model):
    with METHODS["outer"](model):
        with pytest.raises(RuntimeError, match="cannot be copied or pickled while a session is attached"):
            copy.deepcopy(model)
        with pytest.raises((RuntimeError, pickle.PicklingError)):
            pickle.dumps(model)
    other = copy.deepcopy(model)
    assert generate(other) == generate(model)


# compiled models


def compiled(model, how):
    """A model whose forward is compiled, and what to call for logits."""
    if how == "torch.compile(model)":
        return torch.compile(model, backend="eager")
    if how == "model.forward":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        model.get_decoder().compile(backend="eager")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torch.compile(model)", "model.forward", "decoder.compile()"])
@pytest.mark.parametrize("method", METHODS)
def test_compiled_and_called_before_the_session(wanted, method, how):
    model = llava_onevision()
    with torch.no_grad():
        plain = model(**inputs()).logits
        called = compiled(model, how)
        torch.testing.assert_close(called(**inputs()).logits, plain)
        with METHODS[method](called) as session:
            torch.testing.assert_close(called(**inputs()).logits, wanted[method][1])
            assert len(session.videos) == 1
            assert generate(model) == wanted[method][0]
        torch.testing.assert_close(called(**inputs()).logits, plain)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_compiled_without_a_cache(wanted, method):
    model = llava_onevision()
    model.forward = torch.compile(model.forward, backend="eager")
    with METHODS[method](model):
        assert generate(model, use_cache=False) == wanted[method][0]
