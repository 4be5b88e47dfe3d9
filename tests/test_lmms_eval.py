"""holitom inside lmms-eval: settings alone, and a run that equals ``holitom eval`` where lmms-eval is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from holitom import HoliTom
from holitom.cli.loading import TINY
from holitom.evaluation import Log, evaluate, label
from holitom.evaluation.run import first_word
from holitom.integrations.lmms_eval import manifest
from holitom.integrations.lmms_eval.settings import conversation_of, cut, generation_of, method_of
from holitom.methods import Chain, FastV, VisionZip
from holitom.methods.baselines import Uncompressed
from holitom.pipeline import Pipeline
from holitom.video import Clip, read_video
from holitom.video.synthetic import SyntheticClip, suite
from holitom.video.synthetic.files import write_clips

INSTALLED = importlib.util.find_spec("lmms_eval") is not None
CLIPS = 3

# settings ------------------------------------------------------------------------------------------------------------


def test_a_method_is_named_as_model_arguments_come():
    assert method_of("holitom", {"retention": 0.1}) == HoliTom(retention=0.1)
    assert method_of("holitom:retention=0.2", {"layer": "none"}) == HoliTom(retention=0.2, layer=None)
    assert method_of("visionzip|fastv", {"retention": 0.15}) == Chain(VisionZip(retention=0.15), FastV())
    assert method_of("none", {}) == Uncompressed()
    with pytest.raises(ValueError, match="retention: give method="):
        method_of("none", {"retention": 0.1})
    with pytest.raises(ValueError, match=r"no parameter 'retantion': did you mean retention"):
        method_of("holitom", {"retantion": 0.1})


def test_messages_become_conversations():
    clip, picture = Clip.from_frames(np.zeros((2, 8, 8, 3), np.uint8)), Image.new("L", (4, 4))
    parts = [{"type": "image", "url": picture}, {"type": "video", "url": "a.mp4"}, {"type": "text", "text": "What?"}]
    seen = []
    (turn,) = conversation_of([{"role": "user", "content": parts}], lambda path: seen.append(path) or clip)
    assert seen == ["a.mp4"]
    assert [part["type"] for part in turn["content"]] == ["image", "video", "text"]
    assert turn["content"][0]["image"].mode == "RGB"
    assert turn["content"][1]["video"] is clip
    assert conversation_of([{"role": "user", "content": "Hi"}], None) == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    ]
    with pytest.raises(TypeError, match="got audio as str"):
        conversation_of([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}], None)
    with pytest.raises(ValueError, match="cut the file first"):
        conversation_of([{"role": "user", "content": [{"type": "video", "url": "a.mp4", "start_time": 3.0}]}], None)


def test_generation_settings():
    arguments, until = generation_of(
        {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False, "until": "\n\n"}
    )
    assert arguments == {"max_new_tokens": 16, "num_beams": 1, "do_sample": False}
    assert until == ["\n\n"]
    assert generation_of({"temperature": 0.7, "top_p": 0.9})[0]["top_p"] == 0.9
    assert cut(" B. red\n\nBecause", ["\n\n"]) == "B. red"


def test_the_entry_point_is_declared():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]\nholitom = "holitom.integrations.lmms_eval:manifest"' in text


@pytest.mark.skipif(INSTALLED, reason="needs an environment without lmms-eval")
def test_without_lmms_eval_the_error_says_what_to_install():
    with pytest.raises(ImportError, match=r"pip install 'holitom\[lmms-eval\]'"):
        manifest()


# a whole run ---------------------------------------------------------------------------------------------------------

TASK = """\
task: holitom_clips
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 4
  temperature: 0
process_results: !function utils.process_results
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
"""
UTILS = """\
from holitom.evaluation.run import first_word


def doc_to_visual(doc):
    return [{folder!r} + "/" + doc["video"]]


def process_results(doc, results):
    return {{"right": float(first_word(results[0]) == doc["answer"])}}
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return folder, write_clips(folder, CLIPS)


@pytest.fixture(scope="module")
def task(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks") / "holitom_clips"
    folder.mkdir()
    (folder / "holitom_clips.yaml").write_text(TASK.format(questions=clips[1]))
    (folder / "utils.py").write_text(UTILS.format(folder=str(clips[0])))
    return folder


@pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed: pip install 'holitom[lmms-eval]'")
@pytest.mark.parametrize(
    ("arguments", "method"), [("retention=0.2", HoliTom(retention=0.2)), ("method=none", Uncompressed())]
)
def test_lmms_eval_finds_what_holitom_eval_finds(arguments, method, clips, task, tmp_path):
    where, out = Path(__file__).parents[1], tmp_path / "out"
    command = [
        *(sys.executable, "-m", "lmms_eval", "--model", "holitom", "--tasks", "holitom_clips", "--device", "cpu"),
        *("--model_args", f"pretrained={TINY},dtype=float32,frames=8,{arguments}", "--batch_size", "3"),
        *("--include_path", str(task.parent), "--log_samples", "--output_path", str(out)),
    ]
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    paths = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(where), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env={**paths, **offline}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (samples,) = out.rglob("*samples_holitom_clips.jsonl")
    theirs = [json.loads(line) for line in samples.read_text().splitlines()]
    (summary,) = out.rglob("*results.json")
    accuracy = json.loads(summary.read_text())["results"]["holitom_clips"]["right,none"]

    pipeline = Pipeline.from_pretrained(TINY, device="cpu", dtype="float32")
    written = [
        SyntheticClip(clip.name, read_video(clips[0] / f"{clip.name}.mp4", 8, rule="endpoints").frames, clip.questions)
        for clip in suite("test", CLIPS)
    ]
    rows = evaluate(pipeline, written, [method], Log(None, {}))
    assert {row.method for row in rows} == {label(method)}
    ours = [answer for row in rows for answer in row.answers]
    said = {sample["doc_id"]: sample["filtered_resps"] for sample in theirs}
    assert [first_word(said[number]) for number in range(len(ours))] == ours
    assert accuracy == pytest.approx(np.mean([right for row in rows for right in row.right]))
