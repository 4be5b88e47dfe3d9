"""The benchmark: stages that add up, figures that are counted elsewhere too, failures and kills that cost nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from holitom import HoliTom
from holitom.bench import (
    PRESETS,
    STAGES,
    Report,
    bench,
    bench_compiled,
    build,
    encode,
    fresh_report,
    from_pipeline,
    from_preset,
    load,
    measure,
    resume,
)
from holitom.bench import run as running
from holitom.bench.measure import CLOCKS
from holitom.bench.memory import peak_memory
from holitom.bench.pixels import frames, patches
from holitom.bench.presets import config
from holitom.cost import ModelShape, kv_cache_bytes
from holitom.methods.base import Method
from holitom.methods.baselines import Uncompressed
from holitom.methods.dycoke import DyCoke
from holitom.methods.fastv import FastV
from holitom.methods.registry import BUILTIN
from holitom.methods.visionzip import VisionZip
from holitom.models import adapter_for
from holitom.pipeline import Pipeline

SETTINGS = {
    "repeats": 2,
    "warmup": 1,
    "batch": 2,
    "frames": 8,
    "dtype": "float32",
    "attention": "sdpa",
    "model": "tiny",
}
HALF = HoliTom(retention=0.5)


@pytest.fixture(scope="module")
def workload():
    return from_preset("tiny", build("tiny", dtype=torch.float32), frames=8, batch=2, text=12, answer=4)


def run(workload, methods, report=None, **options):
    return bench(workload, methods, report or fresh_report(workload, SETTINGS, methods), **options)


# one run -------------------------------------------------------------------------------------------------------------


def test_a_runs_stages_add_up_and_its_bytes_are_those_that_are_counted(workload):
    for method in (Uncompressed(), HALF, FastV()):
        found = measure(workload, method)
        seconds = found.seconds
        assert list(seconds) == list(STAGES)
        assert all(value > 0 for value in seconds.values())
        assert seconds["time to first token"] == pytest.approx(sum(list(seconds.values())[:3]))
        longest = [max(layer) for layer in zip(*(prompt.by_layer for prompt in found.summary.prompts), strict=True)]
        shape = ModelShape.from_config(workload.model.config)
        assert found.kv_cache_bytes == 2 * kv_cache_bytes(shape, longest, torch.float32)  # the shorter row is padded


@dataclass(frozen=True)
class Slow(Method):
    """Keeps everything, after a nap."""

    name: ClassVar[str] = "fastv"  # any name of the registry

    def merge_video(self, video):
        time.sleep(0.05)
        return super().merge_video(video)


def test_what_a_method_takes_is_compression_and_nothing_else(workload):
    plain, slow = measure(workload, Uncompressed()).seconds, measure(workload, Slow()).seconds
    assert slow["compression"] > 0.1 > plain["compression"]  # two videos
    assert slow["time to first token"] > 0.1
    assert slow["vision tower"] + slow["LLM prefill"] < slow["time to first token"] - 0.1


def test_processor_time_does_not_count_waiting(workload):
    seconds = measure(workload, Slow(), clock=CLOCKS["process"]).seconds
    assert 0 < seconds["compression"] < 0.05  # of two naps of 0.05 s
    assert seconds["time to first token"] > 0


def test_a_shared_tower_runs_once_for_all_who_need_no_more(workload, monkeypatch):
    seen, real = [], running.encode
    monkeypatch.setattr(running, "encode", lambda *given: seen.append(given[1]) or real(*given))
    methods = [Uncompressed(), VisionZip(retention=0.5), HALF, FastV()]
    report = run(workload, methods, share_tower=True)
    assert seen == [frozenset(), frozenset({"scores", "keys"})]
    times = {each[name]["vision tower"] for each in report.rounds for name in each}
    assert len(times) == 2


def test_a_shared_tower_changes_neither_tokens_nor_cache(workload):
    alone, shared = measure(workload, HALF), measure(workload, HALF, encode(workload, HALF.needs))
    assert shared.summary.visual_tokens == alone.summary.visual_tokens
    assert shared.kv_cache_bytes == alone.kv_cache_bytes
    assert shared.seconds["vision tower"] > 0


def test_an_answer_of_one_token_has_no_time_per_token(workload):
    short = from_preset("tiny", workload.model, frames=4, answer=1)
    assert "time per output token" not in measure(short, HALF).seconds


def test_peak_memory_sees_what_was_there_for_a_moment():
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(100 << 20, dtype=torch.uint8)
    if peak.above is not None:  # the system tells
        assert 90 << 20 < peak.above < 200 << 20
        assert peak.total > peak.above


# rounds --------------------------------------------------------------------------------------------------------------


def test_all_methods_take_their_turn_in_every_round(workload):
    order = []
    report = run(workload, [Uncompressed(), HALF, FastV()], done=order.append)
    assert order == ["uncompressed", "holitom:retention=0.5", "fastv"] * 3
    assert [list(each) for each in report.rounds] == [["uncompressed", "holitom:retention=0.5", "fastv"]] * 2
    results = report.results()
    assert results["uncompressed"]["speedup"]["LLM prefill"] == {"median": 1, "minimum": 1, "maximum": 1}
    pairs = [
        each["uncompressed"]["LLM prefill"] / each["holitom:retention=0.5"]["LLM prefill"] for each in report.rounds
    ]
    assert results["holitom:retention=0.5"]["speedup"]["LLM prefill"]["maximum"] == pytest.approx(max(pairs))
    step = results["fastv"]["seconds"]["time per output token"]["median"]
    assert results["fastv"]["tokens_per_second"] == pytest.approx(2 / step)
    tokens = report.methods["holitom:retention=0.5"]["visual_tokens"]
    assert tokens["full"] == report.methods["uncompressed"]["visual_tokens"]["entering"] == 2 * (8 * 16 + 1)
    assert tokens["entering"] < 0.6 * tokens["full"]
    assert report.machine["torch"] == torch.__version__


def test_a_method_that_fails_costs_only_itself(workload):
    report = run(workload, [Uncompressed(), DyCoke(retention=0.1), HALF])
    assert list(report.results()) == ["uncompressed", "holitom:retention=0.5"]
    assert "give at least 0.250" in report.failures["dycoke:retention=0.1"]
    assert len(report.rounds) == 2


@dataclass(frozen=True)
class Breaks(Method):
    """Works twice."""

    name: ClassVar[str] = "breaks"
    calls: ClassVar[list[int]] = []

    def merge_video(self, video):
        self.calls.append(1)
        if len(self.calls) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().merge_video(video)


def test_a_method_that_fails_later_keeps_what_it_had(workload, monkeypatch):
    monkeypatch.setitem(BUILTIN, "breaks", Breaks)
    Breaks.calls.clear()
    report = run(workload, [Uncompressed(), Breaks()])
    assert report.failures == {"breaks": "OutOfMemoryError: CUDA out of memory."}
    assert ["breaks" in each for each in report.rounds] == [True, False]
    assert report.results()["breaks"]["seconds"]["LLM prefill"]["repeats"] == 1
    assert report.results()["breaks"]["speedup"] == {}  # there is no ratio where rounds are missing


def test_the_baseline_is_not_optional(workload):
    with pytest.raises(ValueError, match="uncompressed model must be among"):
        run(workload, [HALF])


# on disk -------------------------------------------------------------------------------------------------------------


def test_a_report_survives_json(workload, tmp_path):
    report = run(workload, [Uncompressed(), HALF], save=lambda current: current.save(tmp_path / "results.json"))
    assert load(tmp_path / "results.json") == report
    again = Report.from_dict(json.loads(json.dumps(report.as_dict())))
    assert again.as_dict() == report.as_dict()
    assert len(report.rounds) == SETTINGS["repeats"]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_killed_run_goes_on_where_it_was(workload, tmp_path):
    path, methods, seen = tmp_path / "results.json", [Uncompressed(), HALF], []

    def save(current):
        current.save(path)
        if len(current.rounds) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workload, methods, save=save)
    kept = load(path).rounds
    report = resume(path, fresh_report(workload, SETTINGS, methods))
    run(workload, methods, report, save=lambda current: current.save(path), done=seen.append)
    assert report.rounds[:1] == kept
    assert len(report.rounds) == 2
    assert len(seen) == 4  # one round to warm up, one that was missing
    run(workload, methods, resume(path, fresh_report(workload, SETTINGS, methods)), done=seen.append)
    assert len(seen) == 4  # nothing is missing any more


def test_other_settings_are_refused_with_the_difference(workload, tmp_path):
    report = fresh_report(workload, SETTINGS, [Uncompressed()])
    report.save(tmp_path / "results.json")
    other = fresh_report(workload, {**SETTINGS, "frames": 16}, [Uncompressed()])
    with pytest.raises(ValueError, match=r"\(frames was 8 and is now 16\): give another --out"):
        resume(tmp_path / "results.json", other)
    (tmp_path / "else.json").write_text('{"format": 7}')
    with pytest.raises(ValueError, match="no benchmark result of format 1"):
        load(tmp_path / "else.json")


# presets and inputs --------------------------------------------------------------------------------------------------

WEIGHTS = {  # billions, by the names of the checkpoints and what their cards say
    "llava-onevision-0.5b": 0.89,
    "llava-onevision-7b": 8.03,
    "llava-onevision-72b": 73.2,
    "qwen2.5-vl-3b": 3.75,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-2b": 2.13,
    "qwen3-vl-8b": 8.77,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_presets_have_the_size_of_their_checkpoints(name):
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config(name))
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(WEIGHTS[name], rel=0.01)
    assert ModelShape.from_config(model.config).depth == len(model.get_decoder().layers)


def test_weights_are_filled_reproducibly_and_buffers_are_real():
    first, second = build("tiny", dtype=torch.float32), build("tiny", dtype=torch.float32)
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two), name
        assert one.isfinite().all()
        if one.dim() > 1:  # two summands in each of two layers of the tower, and of four of the LLM
            summands = {"out_proj": 4, "fc2": 4, "o_proj": 8, "down_proj": 8}.get(name.split(".")[-2], 1)
            assert one.detach().std() == pytest.approx(0.02 * summands**-0.5, rel=0.2)
    frequencies = first.get_decoder().rotary_emb.inv_freq
    assert frequencies[0] == 1
    assert first.lm_head.weight is first.get_input_embeddings().weight
    with pytest.raises(ValueError, match=r"no preset 'llava'; there are llava-onevision-0\.5b"):
        build("llava")


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-2b"])
def test_inputs_of_the_qwen_presets_are_what_their_models_take(name, monkeypatch):
    """The real presets are too large for a test: the same config with few and thin layers."""
    from holitom.bench import presets

    small = PRESETS[name]
    thin = {"hidden_size": 512, "intermediate_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4}
    text = {**small.config["text_config"], **thin, "num_key_value_heads": 2, "vocab_size": 128, "head_dim": 128}
    taps = (
        {"deepstack_visual_indexes": [0, 1]} if "3-" in name.removeprefix("qwen2.5") else {"fullatt_block_indexes": [1]}
    )
    tower = {**small.config["vision_config"], "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    tower = {**tower, "out_hidden_size": 512, **taps}
    config_ = {**small.config, "text_config": text, "vision_config": tower}
    monkeypatch.setitem(presets.PRESETS, name, presets.Preset(config_, small.side // 2, small.source))
    model = build(name, dtype=torch.float32)
    workload = from_preset(name, model, frames=4, batch=2, text=10, answer=3)
    tokens = (small.side // 2 // 28 if "2.5" in name else small.side // 2 // 32) ** 2
    shared = measure(workload, HALF, encode(workload, HALF.needs))
    found = measure(workload, HALF)
    assert found.summary.visual_tokens[0] == 2 * 2 * tokens
    assert found.summary.visual_tokens == shared.summary.visual_tokens
    assert workload.vision_flops > 0


def test_patches_stand_where_the_processor_puts_them():
    from transformers import Qwen2VLVideoProcessor

    video = frames(4, 56, noise=0)
    processor = Qwen2VLVideoProcessor(do_resize=False, do_rescale=False, do_normalize=False)
    wanted = processor(videos=[video], do_sample_frames=False, return_tensors="pt")
    values, grid = patches(video, 14)
    assert wanted["video_grid_thw"].tolist() == [list(grid)]
    torch.testing.assert_close(values, wanted["pixel_values_videos"])


def test_frames_have_scenes_that_holitom_finds(workload):
    video = frames(40, 56)
    assert video.shape == (40, 3, 56, 56)
    change = (video[1:] - video[:-1]).abs().mean((1, 2, 3))
    assert change[15] > 1.5 * change.median()  # a new clip
    assert torch.equal(video, frames(40, 56))
    summary = measure(from_preset("tiny", workload.model, frames=32, answer=1), HALF).summary
    assert 1 < summary.segments < 32


def test_a_checkpoint_is_measured_through_its_own_preprocessor(tmp_path):
    from tiny_checkpoints import build_llava_onevision

    pipeline = Pipeline.from_pretrained(build_llava_onevision(tmp_path / "model"), device="cpu")
    workload = from_pipeline(pipeline, frames=4, batch=2, text=60, answer=3)
    assert workload.inputs["pixel_values_videos"].shape[:2] == (2, 4)
    found = measure(workload, HALF)
    assert found.summary.visual_tokens[0] == 2 * (4 * 16 + 1)
    assert workload.prompt > 60 + 65
    assert adapter_for(pipeline.model).encoder == "get_video_features"
    assert found.seconds["time per output token"] > 0


# compiled decoding ---------------------------------------------------------------------------------------------------


def test_compiled_decoding_is_measured_beside_the_eager_one_and_gone_on_with(workload, tmp_path):
    """With the backend that does nothing; prompts of unequal length."""
    rows = from_preset("tiny", workload.model, frames=8, batch=2, text=12, answer=4, longer=3)
    assert rows.inputs["attention_mask"].sum(1).tolist() == [12 + 129, 15 + 129]
    settings, methods, seen = {**SETTINGS, "compile": "eager", "longer": 3}, [Uncompressed(), HALF], []
    report = run(rows, methods, fresh_report(rows, settings, methods))
    assert "compiled" not in report.results()["uncompressed"]
    bench_compiled(rows, methods[:1], report, save=lambda current: current.save(tmp_path / "results.json"))
    report = resume(tmp_path / "results.json", fresh_report(rows, settings, methods))
    bench_compiled(rows, methods, report, done=seen.append)
    assert seen == ["holitom:retention=0.5, compiled"]
    found = report.results()
    for entry in found.values():
        compiled, eager = entry["compiled"], entry["seconds"]["time per output token"]
        assert compiled["repeats"] == SETTINGS["repeats"]
        assert compiled["tokens_per_second"] == pytest.approx(2 / compiled["median"])
        assert compiled["over_eager"] == pytest.approx(eager["median"] / compiled["median"])
    ratio = found["uncompressed"]["compiled"]["median"] / found["holitom:retention=0.5"]["compiled"]["median"]
    assert found["holitom:retention=0.5"]["compiled"]["speedup"] == pytest.approx(ratio)
    assert all(report.compiled[name]["first_answer"] > 0 for name in found)
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_what_cannot_be_compiled_costs_only_itself(workload):
    report = fresh_report(workload, {**SETTINGS, "compile": "no such backend"}, [HALF])
    bench_compiled(workload, [HALF], report)
    assert list(report.failures) == ["holitom:retention=0.5, compiled"]
    assert not report.compiled
