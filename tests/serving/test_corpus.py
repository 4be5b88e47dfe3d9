"""`holitom caption --engine vllm` says what the engine for transformers says, with the same counts."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make serving")

from engines import ENVIRONMENT

from holitom.cli.loading import TINY
from holitom.corpus import Item, Plan, PromptReader, Store, TransformersEngine, run
from holitom.integrations.vllm.config import ServingConfig
from holitom.pipeline import Pipeline
from holitom.video.synthetic.files import write_clips

QUESTIONS = ("What colour is the square?", "How many objects are there?")


def test_both_engines_fill_the_same_table(tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from holitom.integrations.vllm.corpus import VllmEngine, VllmReader

    write_clips(tmp_path / "clips", 4)
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no film")
    items = [Item(path.name, str(path)) for path in sorted((tmp_path / "clips").glob("*.mp4"))]
    plan = Plan(items, QUESTIONS, workers=0)
    method = ServingConfig.of("holitom", retention=0.25).method
    options = {
        "enforce_eager": True,
        "max_model_len": 2048,
        "max_num_batched_tokens": 2048,
        "kv_cache_memory_bytes": 1 << 27,
    }
    tables = []
    for number, (make, reader) in enumerate(
        (
            (lambda: TransformersEngine(Pipeline.from_pretrained(TINY, device="cpu"), method, 4), PromptReader),
            (lambda: VllmEngine(str(TINY), method, 4, dtype="float32", **options), VllmReader),
        )
    ):
        engine, found = make(), []
        with Store(tmp_path / f"{number}.jsonl", {}, seen=found.append) as store:
            run(plan, engine, reader(str(TINY), QUESTIONS, None), store)
        engine.close()
        tables.append({row.key: row for row in found})
    ours, theirs = tables
    assert ours.keys() == theirs.keys()
    assert len(ours) == 10
    for key, row in ours.items():
        other = theirs[key]
        columns = ("answer", "prompt_tokens", "visual_tokens_in", "visual_tokens_out")
        assert [getattr(other, name) for name in columns] == [getattr(row, name) for name in columns]
        assert (other.error is None) == (row.error is None)
    assert sum(row.error is not None for row in ours.values()) == 2
