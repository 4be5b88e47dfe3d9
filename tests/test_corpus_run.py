"""A run in this process: the answers of separate asks, whatever happens to videos, workers and batches."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_clips import QUESTIONS, rows_of, write_corpus
from corpus_readers import Counting, Crashing, Telling
from media import write_video
from playlists import KINDS, playlist
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom
from holitom.corpus import Item, Plan, PromptReader, Row, Store, TransformersEngine, list_videos, run
from holitom.corpus.pool import NICENESS, Pool
from holitom.corpus.reading import Failure, Video, attempt
from holitom.pipeline import Pipeline
from holitom.video import VideoError, read_video
from holitom.video.container import decoder_threads

METHODS = {
    "outer": HoliTom(retention=0.3, layer=None),
    "inner": HoliTom(retention=0.3, layer=2),
    "none": None,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(build_llava_onevision(tmp_path_factory.mktemp("models") / "tiny", sharpen=20.0))


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return Pipeline.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), 10)


@pytest.fixture
def work(pipeline, checkpoint, tmp_path):
    """Runs a plan with an engine and gives the rows."""

    def call(source, method="inner", out="out.jsonl", engine=None, reader=None, **more):
        plan = Plan(list_videos(str(source)), QUESTIONS, **{"frames": 8, "workers": 0, "group": 4, **more})
        made = engine or TransformersEngine(pipeline, METHODS[method], max_new_tokens=6)
        try:
            with Store(tmp_path / out, {"method": method}) as store:
                run(plan, made, reader or PromptReader(checkpoint, QUESTIONS, 8), store)
        finally:
            made.close()
        return [Row.of(row) for row in rows_of(tmp_path / out)]

    return call


@pytest.mark.parametrize("method", METHODS)
def test_every_row_is_what_a_separate_ask_gives(work, pipeline, corpus, method):
    rows = work(corpus, method)
    assert len(rows) == 20
    for row in rows:
        if row.error is not None:
            with pytest.raises(VideoError) as raised:
                read_video(row.path, 8)
            assert row.error == str(raised.value)
            continue
        answer = pipeline.ask(row.path, row.question, METHODS[method], frames=8, max_new_tokens=6)
        full, entering, _ = answer.summary.visual_tokens
        assert (row.answer, row.error) == (answer.text, None)
        assert (row.visual_tokens_in, row.visual_tokens_out) == (full, entering)
        assert row.prompt_tokens == answer.summary.prompts[0].tokens
    assert sum(row.error is not None for row in rows) == 4


def test_costs_are_those_of_the_prompt_and_shared_once(work, pipeline, corpus):
    """One question at a time there is nothing to share: a row costs what holitom.cost counts for its prompt."""
    rows = [row for row in work(corpus) if row.error is None]
    from holitom.cost import ModelShape, kv_cache_bytes, prefill_flops

    shape = ModelShape.from_config(pipeline.model.config)
    for path in {row.path for row in rows}:
        first, second = sorted((row for row in rows if row.path == path), key=lambda row: -row.full_kv_bytes)
        whole = [first.prompt_tokens] * shape.depth
        assert first.full_prefill_flops == prefill_flops(shape, whole).total
        assert first.full_kv_bytes == kv_cache_bytes(shape, whole, 4)
        assert second.full_prefill_flops < first.full_prefill_flops
        assert second.prefill_flops < first.prefill_flops
        assert second.kv_bytes < first.kv_bytes
        assert second.seconds_decode == second.seconds_prefix == 0


def test_batches_change_no_answer(work, corpus):
    answers = []
    for number, budget in enumerate((1, 400, 100_000)):
        rows = work(corpus, out=f"{number}.jsonl", batch_tokens=budget)
        answers.append({row.key: (row.answer, row.error) for row in rows})
    assert answers[0] == answers[1] == answers[2]


def test_a_run_goes_on_where_it_was(work, corpus, pipeline, tmp_path, checkpoint):
    whole = {row.key: row.answer for row in work(corpus, out="whole.jsonl")}
    engine = TransformersEngine(pipeline, METHODS["inner"], max_new_tokens=6)
    plan = Plan(list_videos(str(corpus)), QUESTIONS, frames=8, workers=0, group=4, batch_tokens=100)
    batches: list[int] = []
    with Store(tmp_path / "out.jsonl", {"method": "inner"}) as store:
        run(
            plan,
            engine,
            PromptReader(checkpoint, QUESTIONS, 8),
            store,
            stop=Third(batches),
            done=lambda: batches.append(1),
        )
        saved = len(store)
    engine.close()
    assert 0 < saved < 20
    rows = work(corpus, batch_tokens=100)
    assert {row.key: row.answer for row in rows} == whole


class Third:
    """True after three batches."""

    def __init__(self, batches):
        self.batches = batches

    def __bool__(self):
        return len(self.batches) >= 3


def test_a_batch_that_fails_costs_only_the_row_at_fault(work, corpus, pipeline):
    class Failing(TransformersEngine):
        def answer(self, rows, shared):
            if any(number == 1 and video.prefix.record.videos[0].frames == 1 for video, number in rows):
                raise RuntimeError("out of memory on purpose")
            return super().answer(rows, shared)

    rows = work(corpus, engine=Failing(pipeline, METHODS["inner"], max_new_tokens=6))
    failed = [row for row in rows if row.error and "on purpose" in row.error]
    assert [(Path(row.path).name, row.question) for row in failed] == [("clip-005.mp4", QUESTIONS[1])]
    assert sum(row.answer is not None for row in rows) == 15


def test_a_video_that_vanishes_is_a_row_with_its_error(checkpoint, tmp_path):
    source = write_corpus(tmp_path / "clips", 3)

    plan = list_videos(str(source))
    (source / "clip-001.mp4").unlink()
    found = [attempt(PromptReader(checkpoint, QUESTIONS, 8), item) for item in plan]
    assert [type(each) for each in found] == [Video, Failure, Video]
    assert "clip-001.mp4: no such file" in found[1].error


def test_no_death_of_a_worker_is_a_hang(tmp_path):
    names = ["a", "dies", "b", "once", "bad", "c", "sleeps", "d"]
    with Pool(Crashing(f"{tmp_path}/"), workers=2, timeout=2.0) as pool:
        found = list(pool.read([Item(name, name) for name in names]))
    assert [each.path for each in found] == names
    errors = {each.path: each.error for each in found if isinstance(each, Failure)}
    assert set(errors) == {"dies", "bad", "sleeps"}
    assert "died (exit code 11), 2 times" in errors["dies"]
    assert errors["bad"] == "cannot be read"
    assert "longer than 2 s" in errors["sleeps"]


def test_no_more_videos_are_read_ahead_than_allowed(tmp_path):
    with Pool(Counting(str(tmp_path)), workers=2, prefetch=3) as pool:
        stream = pool.read([Item(str(number), "") for number in range(20)])
        for taken in range(1, 6):
            assert isinstance(next(stream), Video)
            time.sleep(0.3)
            assert taken <= len(list(tmp_path.iterdir())) <= taken + 3


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores and niceness as Linux has them")
def test_workers_share_the_cores_and_give_way_to_the_model():
    cores, own, threads = len(os.sched_getaffinity(0)), os.nice(0), torch.get_num_threads()
    with Pool(Telling(), 2) as pool:
        [video] = pool.read([Item("a", "a")])
    assert video.content == {"torch": 1, "decoder": max(1, cores // 2), "nice": min(19, own + NICENESS)}
    torch.set_num_threads(2)
    try:
        with Pool(Telling(), 0) as pool:
            [video] = pool.read([Item("a", "a")])
        assert video.content == {"torch": 2, "decoder": 0, "nice": own}, "reading here leaves the model its threads"
    finally:
        torch.set_num_threads(threads)


def damaged_films(folder: Path, count: int) -> list[Item]:
    """Films in whose pictures bytes were changed."""
    dice, items = np.random.default_rng(0), []
    for number in range(count):
        path = write_video(folder / f"film-{number}.mp4", 60, ("libx264", "mpeg4")[number % 2], options={"bf": "2"})
        data = bytearray(path.read_bytes())
        for at in dice.integers(600, len(data) * 3 // 4, 12):
            data[at] ^= 0x55
        path.write_bytes(data)
        items.append(Item(path.name, str(path)))
    return items


@pytest.mark.parametrize("films", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_damaged_films_are_read_alike_by_any_number_of_workers_and_threads(checkpoint, tmp_path, films):
    reader, items = PromptReader(checkpoint, QUESTIONS, 8), damaged_films(tmp_path, films)

    def seen(found):
        if isinstance(found, Failure):
            return found
        return found.warning, {name: value.tobytes() for name, value in found.content.start.items()}

    wanted = [seen(attempt(reader, item)) for item in items]
    assert sum(isinstance(each, Failure) or each[0] is not None for each in wanted) >= films / 2, (
        "most are damaged indeed"
    )
    for threads in (1, 3, 8):
        before = decoder_threads.set(threads)
        assert [seen(attempt(reader, item)) for item in items] == wanted
        decoder_threads.reset(before)
    for workers in (1, 2) if films > 2 else ():  # workers give way to all else, and take long on a busy machine
        with Pool(reader, workers) as pool:
            assert list(map(seen, pool.read(items))) == wanted


def test_workers_give_what_reading_here_gives(checkpoint, tmp_path):
    source = write_corpus(tmp_path / "clips", 4)
    write_video(source / "long.mp4", 40)
    damaged_films(source, 2)
    reader = PromptReader(checkpoint, QUESTIONS, 8)
    items = list_videos(str(source))
    with Pool(reader, workers=1) as pool:
        for there, item in zip(pool.read(items), items, strict=True):
            here = attempt(reader, item)
            if isinstance(here, Failure):
                assert there == here
                continue
            assert (there.content.rest, there.warning) == (here.content.rest, here.warning)
            assert {name: value.tolist() for name, value in there.content.start.items()} == {
                name: value.tolist() for name, value in here.content.start.items()
            }


def test_the_command(corpus, checkpoint, tmp_path, monkeypatch, capsys):
    from holitom.cli import main

    def call(*more):
        words = ["holitom", "caption", str(corpus), "--question", "What?", "--model", checkpoint, "--frames", 4]
        words += ["--workers", 0, "--max-new-tokens", 3, "--out", tmp_path / "out.parquet", *more]
        monkeypatch.setattr("sys.argv", [*map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = capsys.readouterr()
        return exit_.value.code or 0, shown.out, " ".join(shown.err.split())

    code, out, told = call("--summary", "-")
    assert code == 0, told
    report = json.loads(out)
    assert (report["rows"], report["expected_rows"], report["errors"]) == (10, 10, 2)
    assert report["ratio"]["kv_cache_bytes"] < 0.5
    rows = rows_of(tmp_path / "out.parquet")
    assert report["uncompressed"]["visual_tokens"] == sum(row["visual_tokens_in"] or 0 for row in rows)
    assert "10 rows, 2 with errors; done" in told
    code, out, told = call("--summary", tmp_path / "summary.json")
    assert "holds 10 rows already" in told
    assert json.loads((tmp_path / "summary.json").read_text())["this_run"]["rows"] == 0
    code, _, told = call("--retention", 0.5)
    assert code == 1
    assert "was made with other settings: method.retention was 0.1 and is now 0.5. Give" in told
    assert "--restart to throw it away" in told
    code, _, told = call("--retention", 0.5, "--restart")
    assert code == 0
    assert len(rows_of(tmp_path / "out.parquet")) == 10


def caption(monkeypatch, capsys, *words):
    """Runs the command in this process; gives its exit code, output and messages."""
    from holitom.cli import main

    monkeypatch.setattr("sys.argv", ["holitom", "caption", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        main()
    shown = capsys.readouterr()
    return exit_.value.code or 0, shown.out, " ".join(shown.err.split())


@pytest.mark.skipif(os.name != "posix", reason="names as bytes")
def test_hostile_names_and_playlists_are_rows_and_no_more(checkpoint, tmp_path, monkeypatch, capsys):
    """Neither a name that is no text nor one that steers a terminal ends a run; no playlist opens another file."""
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    source.mkdir()
    good = write_video(source / "good.mp4", 4)
    (source / os.fsdecode(b"caf\xe9.mp4")).write_bytes(good.read_bytes())
    (source / os.fsdecode(b"broken\xff.mp4")).write_bytes(b"")
    (source / "\x1b[2Jred\nline.mp4").write_bytes(b"")
    lists = [playlist(outside, kind) for kind in KINDS]
    for path in lists:
        (source / f"list-{path.name}").write_bytes(path.read_bytes())
    (source / "paths.csv").write_text("path\n" + "\n".join(f'"{path}"' for path in lists))
    options = ["--model", checkpoint, "--question", "?", "--max-new-tokens", 2, "--workers", 0, "--frames", 4]
    code, _, err = caption(monkeypatch, capsys, source, "--out", tmp_path / "a.parquet", *options)
    assert code == 0, err
    assert "\x1b" not in err
    rows = {row["path"].removeprefix(f"{source}/"): row for row in rows_of(tmp_path / "a.parquet")}
    assert {"good.mp4", r"caf\xe9.mp4", r"broken\xff.mp4", "\x1b[2Jred\nline.mp4"} <= set(rows)
    assert rows["good.mp4"]["error"] is rows[r"caf\xe9.mp4"]["error"] is None
    assert "empty" in rows[r"broken\xff.mp4"]["error"]
    assert all(row["error"] for name, row in rows.items() if name.startswith("list-"))
    assert all(row["answer"] is None for name, row in rows.items() if name.startswith("list-"))
    code, _, err = caption(monkeypatch, capsys, source / "paths.csv", "--out", tmp_path / "b.jsonl", *options)
    assert code == 1
    assert f"{len(lists)} of {len(lists)} rows have an error instead of an answer" in err


def test_exit_codes_say_how_many_rows_have_an_answer(checkpoint, tmp_path, monkeypatch, capsys):
    source = write_corpus(tmp_path / "clips", 4)  # one of them is damaged
    options = ["--model", checkpoint, "--question", "?", "--max-new-tokens", 2, "--workers", 0, "--frames", 4]
    for share, want in ((0.7, 0), (0.8, 1)):
        out = tmp_path / f"{share}.jsonl"
        code, _, err = caption(monkeypatch, capsys, source, "--out", out, "--fail-under", share, *options)
        assert code == want, err
    assert "1 of 4 rows have an error instead of an answer: --fail-under 0.8" in err


def test_the_count_is_never_cut(monkeypatch):
    import io

    from rich.console import Console

    from holitom.cli import caption
    from holitom.corpus import Totals

    totals = Totals(123_456)
    totals.rows = 98_765
    for width in (20, 40, 80):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        monkeypatch.setattr(caption, "err", console)
        with caption._progress(totals, quiet=False):
            pass
        assert "98765/123456 rows" in console.file.getvalue()
