"""What a vLLM server is told, checked without vLLM."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
import torch

from holitom import HoliTom
from holitom.integrations.vllm import (
    ARCHITECTURES,
    ServingConfig,
    command_line,
    engine_arguments,
    serving_architecture,
)
from holitom.integrations.vllm.architectures import BACKEND, CALLED, OWN, REFUSED, served_by
from holitom.methods import EVS, DivPrune, FastV, VisionZip
from holitom.methods.registry import BUILTIN
from holitom.models import supported
from holitom.tokens import VideoTokens, exact_count

CELLS = {"cellsample", "cellmean"}  # have no retention
NEEDS_RETENTION = {"dycoke", "prunevid"}
ASKING = {name for name, cls in BUILTIN.items() if "question" in cls.needs}
SERVED = [name for name, cls in BUILTIN.items() if cls.stages[0] == "before" and name not in CELLS | ASKING]


@pytest.mark.parametrize("name", SERVED)
def test_every_method_with_an_outer_stage_is_served_with_an_exact_count(name: str):
    config = ServingConfig.of(name, **({"retention": 0.3} if name in NEEDS_RETENTION else {}))
    assert config.method.layers(28) == ()
    share = config.method.retention
    for frames, grid in ((1, (1, 1)), (1, (3, 5)), (7, (4, 6)), (32, (14, 14))):
        assert config.token_count(frames, grid) == exact_count(frames, grid, share)


@pytest.mark.parametrize("retention", [0.01, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("name", SERVED)
def test_every_method_keeps_its_promise_for_any_shape(name: str, retention: float):
    """Placeholders are there before the features are: a method that kept fewer or more would end the server."""
    config = ServingConfig.of(name, retention=retention)
    random = torch.Generator().manual_seed(0)
    for frames, (rows, columns) in ((1, (1, 1)), (1, (2, 3)), (2, (1, 4)), (3, (4, 4)), (9, (2, 3)), (16, (3, 5))):
        still = torch.randn(1, rows * columns, 16, generator=random)
        features = still + 0.1 * torch.randn(frames, rows * columns, 16, generator=random)
        shape = (frames, rows * columns)
        for given in (features, torch.zeros_like(features)):  # a black video is one, too
            video = VideoTokens(
                given,
                (rows, columns),
                scores=torch.rand(*shape, generator=random),
                keys=torch.randn(*shape, 8, generator=random),
            )
            merge = config.method.merge_video(video)
            assert merge.outputs == config.token_count(frames, (rows, columns))
            assert torch.isfinite(merge.apply(given.flatten(0, 1))).all()


@pytest.mark.parametrize("name", SERVED)
def test_settings_travel_as_json_and_come_back(name: str):
    config = ServingConfig.of(name, **({"retention": 0.3} if name in NEEDS_RETENTION else {}))
    assert ServingConfig.parse(json.loads(json.dumps(config.settings()))) == config


def test_settings_that_are_not_default_travel_too():
    for config in (
        ServingConfig.of("holitom", retention=0.15, similarity=0.7, centre_weight=None),
        ServingConfig.of("visionzip", dominant=10, contextual=2),
        ServingConfig.of("evs", pruning_rate=0.9),
        ServingConfig(EVS(retention=0.5)),
    ):
        assert ServingConfig.parse(json.loads(json.dumps(config.settings()))) == config


def test_text_and_mapping_say_the_same():
    method = HoliTom(retention=0.2, similarity=0.7, layer=None, exact=True)
    assert ServingConfig.parse("holitom:retention=0.2,similarity=0.7").method == method
    assert ServingConfig.parse("holitom:similarity=0.7", retention=0.2).method == method
    assert ServingConfig.parse({"method": "holitom", "retention": 0.2, "similarity": 0.7}).method == method


def test_a_count_of_the_methods_own_is_kept():
    assert ServingConfig.parse("visionzip:dominant=10,contextual=2").token_count(8, (14, 14)) == 8 * 12
    assert ServingConfig.parse("evs:pruning_rate=0.9").token_count(8, (14, 14)) == 196  # one whole frame


@pytest.mark.parametrize("retention", [1e-9, 0.001, 0.1])
def test_the_count_has_a_floor_of_one_token(retention: float):
    for name in SERVED:
        assert ServingConfig.of(name, retention=retention).token_count(1, (1, 1)) == 1


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("holitem", "did you mean holitom"),
        ("holitom:retention=1.5", r"retention .* \(0, 1\], got 1.5"),
        ("holitom:retention=0", r"retention .* \(0, 1\], got 0"),
        ("holitom:retention=much", "retention must be a number, got 'much'"),
        ("holitom:layer=18", "inside the LLM.*KV cache.*Use layer=None"),
        ("holitom:exact=false", "places before it has seen the video.*exact=True"),
        ("holitom:colour=red", "no parameter 'colour'"),
        ("holitom|fastv", "inside the LLM.*scheduler.*Use one of holitom, spread, visionzip"),
        ("fastv", "inside the LLM.*Use one of holitom, spread, visionzip"),
        ("framefusion", "inside the LLM"),
        ("dycoke", "needs a retention"),
        ("fastvid:scenes=embeddings", "frame embeddings"),
        ({"retention": 0.1}, "name their method under 'method'"),
        (0.1, "a mapping or text, got 0.1"),
    ],
)
def test_what_cannot_be_served_is_refused(setting: object, complaint: str):
    with pytest.raises((ValueError, TypeError), match=complaint):
        ServingConfig.parse(setting)


def test_methods_are_checked_however_they_come():
    with pytest.raises(ValueError, match="inside the LLM"):
        ServingConfig(HoliTom())
    with pytest.raises(ValueError, match="inside the LLM"):
        ServingConfig(FastV())
    with pytest.raises(TypeError, match="takes a method"):
        ServingConfig("holitom")
    assert ServingConfig(DivPrune()).method == DivPrune()
    assert ServingConfig(VisionZip()).token_count(4, (14, 14)) == VisionZip().token_count(4, (14, 14))


def test_a_setting_given_twice_is_refused():
    with pytest.raises(ValueError, match="retention is given twice"):
        ServingConfig.parse("holitom:retention=0.2", retention=0.3)


@pytest.mark.parametrize("stock", ARCHITECTURES)
def test_engine_arguments(stock: str):
    config = ServingConfig.of("holitom", retention=0.1)
    arguments = engine_arguments(config, stock)
    assert arguments["hf_overrides"] == {
        "architectures": [f"HoliTom{stock}"],
        "holitom": {"method": "holitom", "retention": 0.1},
    }
    words = command_line(arguments)
    assert json.loads(words[words.index("--hf-overrides") + 1]) == arguments["hf_overrides"]
    assert engine_arguments(config, ARCHITECTURES[stock]) == arguments


def test_other_architectures_are_named_with_what_works():
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*LlavaOnevisionForConditionalGeneration"):
        serving_architecture("LlamaForCausalLM")


def test_the_settings_need_no_vllm():
    code = "import sys; import holitom.integrations.vllm.config; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_entry_point_imports_vllm_only_when_called():
    import holitom.integrations.vllm as plugin

    outside = [
        node
        for node in ast.parse(inspect.getsource(plugin)).body
        if isinstance(node, ast.Import | ast.ImportFrom) and (getattr(node, "module", "") or "").split(".")[0] == "vllm"
    ]
    assert not outside


@pytest.mark.parametrize("text", ["renewal", "tome"])
def test_a_stage_inside_the_vision_tower_alone_is_refused(text: str):
    with pytest.raises(ValueError, match=rf"inside the vision tower alone.*{text}\|holitom:retention=0.1"):
        ServingConfig.parse(text)


@pytest.mark.parametrize("text", ["renewal:change=0.2|holitom:retention=0.1", "tome|evs"])
def test_a_stage_inside_the_vision_tower_goes_to_the_transformers_backend(text: str):
    config = ServingConfig.parse(text)
    stock = "Qwen2_5_VLForConditionalGeneration"
    overrides = engine_arguments(config, stock)["hf_overrides"]
    assert overrides["architectures"] == [f"HoliTomTransformers{stock}"]
    assert ServingConfig.parse(json.loads(json.dumps(overrides["holitom"]))) == config
    with pytest.raises(ValueError, match="has an own class, and is not served on vLLM's Transformers backend"):
        engine_arguments(config, "Qwen3VLForConditionalGeneration")


def test_a_chains_settings_are_those_of_serving():
    config = ServingConfig.parse("renewal|holitom", retention=0.3)
    assert config.method.parts[1] == ServingConfig.of("holitom", retention=0.3).method
    assert config.token_count(4, (5, 5)) == 30
    with pytest.raises(ValueError, match="inside the LLM"):
        ServingConfig.parse("renewal|visionzip|holitom:layer=18")
    with pytest.raises(ValueError, match="inside the LLM"):
        ServingConfig.parse("visionzip|holitom")


def test_every_family_is_served_or_refused_with_a_reason():
    ours = {name for name, adapter in supported().items() if adapter.__module__.startswith("holitom.")}
    assert ours == {*OWN, *BACKEND, *REFUSED}
    assert not {*OWN, *BACKEND} & {*REFUSED}
    assert all(serving_architecture(name) == ARCHITECTURES[ours] for name, ours in CALLED.items())
    for name in ours:
        if served_by(name) == "no":
            with pytest.raises(ValueError, match=re.escape(REFUSED[name])):
                serving_architecture(name)
        else:
            assert serving_architecture(name) == f"HoliTom{name}"
    for name in ("Qwen2_5OmniModel", "Qwen3OmniMoeForConditionalGeneration"):  # as checkpoints call them
        with pytest.raises(ValueError, match=r"does not serve .*: its checkpoints hold a talker beside the thinker"):
            serving_architecture(name)
