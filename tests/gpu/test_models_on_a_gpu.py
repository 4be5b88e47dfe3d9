"""Every family on a GPU: what generate() gives equals what it gives on a CPU; stages, memory and dtypes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from families import batch, three_rows
from test_families_equalities import CASES, METHODS, generate, model_of

from holitom import HoliTom
from holitom.bench import build, from_preset
from holitom.bench.measure import COMPRESSION, FIRST, NEXT, PREFILL, STAGES, TOWER, measure
from holitom.cli.loading import TINY
from holitom.corpus import TransformersEngine
from holitom.corpus.reading import Video, prompts_of
from holitom.methods.baselines import Uncompressed
from holitom.pipeline import Pipeline
from holitom.video import Clip
from holitom.video.synthetic.suite import clips

STEPS = 5


def moved(name: str) -> torch.nn.Module:
    return copy.deepcopy(model_of(name)).cuda()


@pytest.mark.parametrize(("name", "method"), CASES)
def test_greedy_answers_equal_those_on_a_cpu(name, method):
    rows = three_rows(name)
    settings = replace(METHODS[method], similarity=0.8)  # "auto" ranks by Spread, which picks in rounds on a GPU
    with settings(model_of(name)):
        want, want_logits = generate(model_of(name), name, rows)
    model = moved(name)
    inputs = {key: value.cuda() for key, value in batch(name, *rows).items()}
    with settings(model) as session:
        out = model.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        assert all(video.merge.target.is_cuda for video in session.videos)
    assert out.sequences[:, -STEPS:].tolist() == want
    # queries and keys are scaled up by 20, and rounding with them; experts add to it (3.5e-3 seen on an H100)
    atol = 5e-3 if name == "glm4v_moe" else 2e-3
    torch.testing.assert_close(torch.stack(out.logits, 1).cpu(), want_logits, atol=atol, rtol=1e-3)


@pytest.mark.parametrize("method", ["outer", "inner"])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_masses_count_as_on_a_cpu(name, method):
    rows, settings = three_rows(name), replace(METHODS[method], similarity=0.8, mass=True)
    with settings(model_of(name)):
        _, want = generate(model_of(name), name, rows)
    model = moved(name)
    inputs = {key: value.cuda() for key, value in batch(name, *rows).items()}
    with settings(model):
        out = model.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    torch.testing.assert_close(torch.stack(out.logits, 1).cpu(), want, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_half_precision(name, dtype):
    model = moved(name).to(dtype)
    inputs = {
        key: value.cuda().to(dtype) if value.is_floating_point() else value.cuda()
        for key, value in batch(name, *three_rows(name)).items()
    }
    with HoliTom(retention=0.3, layer=3)(model), torch.no_grad():
        logits = model(**inputs).logits
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_compiled_decoding_with_a_static_cache(method):
    """What generate() does by itself on a GPU."""
    name = "llava_onevision"
    model = moved(name)
    inputs = {key: value.cuda() for key, value in batch(name, *three_rows(name)).items()}
    settings = {"max_new_tokens": STEPS, "do_sample": False}
    with METHODS[method](model):
        want = model.generate(**inputs, **settings)[:, -STEPS:].tolist()
        got = model.generate(**inputs, **settings, cache_implementation="static")[:, -STEPS:].tolist()
    assert got == want


def test_a_benchmark_tells_stages_and_memory():
    workload = from_preset("tiny", build("tiny", "cuda", torch.float32), frames=8, answer=4)
    plain, merged = (measure(workload, method) for method in (Uncompressed(), HoliTom(retention=0.25)))
    for run in (plain, merged):
        assert set(STAGES) == set(run.seconds)
        assert all(run.seconds[stage] > 0 for stage in (TOWER, PREFILL, FIRST, NEXT))
        assert run.peak_bytes > run.peak_above > 0
    assert merged.seconds[COMPRESSION] > 0
    assert merged.kv_cache_bytes < plain.kv_cache_bytes


def test_questions_about_a_clip_through_the_pipeline_and_in_a_corpus():
    clip = Clip.from_frames(next(iter(clips("test", 0))).frames)
    questions = ("What colour is the square?", "How many objects are there?")
    method, answers = HoliTom(retention=0.25), {}
    for device in ("cpu", "cuda"):
        pipeline = Pipeline.from_pretrained(TINY, device=device, dtype=torch.float32)
        alone = [pipeline.ask(clip, question, method, max_new_tokens=4).text for question in questions]
        engine = TransformersEngine(pipeline, method, max_new_tokens=4)
        prompts = prompts_of(pipeline.preprocessor, clip, questions, pipeline.model.config.video_token_id)
        encoded = engine.encode(Video("clip", prompts))
        said = engine.answer([(encoded, 0), (encoded, 1)], [False, True])
        engine.close()
        answers[device] = (alone, [each.text for each in said], said[0].counts)
    assert answers["cpu"] == answers["cuda"]
