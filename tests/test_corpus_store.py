"""The output on disk: whole at every moment, nothing lost or doubled, and clear about what was saved."""

from __future__ import annotations

import json
import resource
import sys
from contextlib import contextmanager

import pytest
from corpus_clips import rows_of
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from holitom.corpus import Row, Store, StoreError, Totals
from holitom.corpus.formats import format_of

SETTINGS = {"model": "tiny", "frames": 8, "questions": ["What?"]}
ENDINGS = (".parquet", ".jsonl")


def row(number: int, **more) -> Row:
    return Row(
        f"clip-{number}.mp4",
        "What?",
        **{"answer": f"ä\n{number}", "prompt_tokens": 10 + number, "model": "tiny", **more},
    )


@contextmanager
def room(size: int):
    """No file may grow beyond ``size`` bytes: what a full disk does, done by the kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_back_as_they_were(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    given_rows = [row(1), row(2, answer=None, error="broken", warning="w"), row(3, seconds_decode=0.5, kv_bytes=2**40)]
    with Store(out, SETTINGS) as store:
        store.add(given_rows[:1])
        store.add(given_rows[1:])
    assert list(format_of(out).read(out)) == given_rows
    assert rows_of(out) == [each.as_dict() for each in given_rows]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_finished_row_is_not_written_again(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    for _ in range(2):
        with Store(out, SETTINGS) as store:
            store.add([row(1), row(2)])
            store.add([row(2), row(3), row(3)])
    assert [each["path"] for each in rows_of(out)] == ["clip-1.mp4", "clip-2.mp4", "clip-3.mp4"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_killed_run_is_whole_again_when_it_is_opened(tmp_path, ending):
    """Rows that were added and not published, and a kill between publishing and starting OUT.run again."""
    out = tmp_path / f"out{ending}"
    store = Store(out, SETTINGS)
    store.add([row(1), row(2)])
    left = store.run.read_bytes()
    store.publish()
    store.run.write_bytes(left)  # the kill came right after OUT was put in place
    store._file.close()
    assert len(rows_of(out)) == 2
    seen: list[Row] = []
    with Store(out, SETTINGS, seen=seen.append) as again:
        assert len(again) == 2
        assert ("clip-1.mp4", "What?") in again
    assert len(rows_of(out)) == len(seen) == 2


@given(cut=st.integers(min_value=0, max_value=4000), ending=st.sampled_from(ENDINGS))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_cut_off_anywhere_costs_its_batch_and_no_other(tmp_path, cut, ending):
    out = tmp_path / f"{cut}{ending}"
    store = Store(out, SETTINGS, restart=True)
    ends = [store.run.stat().st_size]
    for number in range(0, 9, 3):
        store.add([row(number), row(number + 1), row(number + 2)])
        ends.append(store.run.stat().st_size)
    store._file.close()
    out.unlink(missing_ok=True)
    with store.run.open("r+b") as file:
        file.truncate(min(cut, ends[-1]))
    whole = 3 * sum(end <= cut for end in ends[1:])
    with Store(out, SETTINGS) as again:
        assert len(again) == whole
        again.add([row(number) for number in range(9)])
    assert sorted(each["path"] for each in rows_of(out)) == [f"clip-{number}.mp4" for number in range(9)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_settings_are_refused_and_the_difference_is_shown(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    with Store(out, SETTINGS) as store:
        store.add([row(1)])
    with pytest.raises(ValueError, match=r"frames was 8 and is now 16; mode was None and is now 'x'"):
        Store(out, {**SETTINGS, "frames": 16, "mode": "x"})
    assert len(rows_of(out)) == 1
    with Store(out, {**SETTINGS, "frames": 16}, restart=True) as store:
        assert len(store) == 0
    assert rows_of(out) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_store_without_a_row_takes_other_settings(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    with pytest.raises(OSError, match="no model"), Store(out, SETTINGS):
        raise OSError("there is no model")
    assert list(tmp_path.iterdir()) == [], "a start that failed leaves nothing behind"
    with Store(out, SETTINGS):
        pass
    out.with_name(f"{out.name}.run").write_bytes(b'{"frames": 99}\n')  # as a killed start leaves it
    with Store(out, {**SETTINGS, "frames": 16}) as store:
        store.add([row(1)])
    with Store(out, {**SETTINGS, "frames": 16}) as store:
        assert len(store) == 1
    with pytest.raises(ValueError, match="frames was 16 and is now 8"):
        Store(out, SETTINGS)
    store.run.unlink()
    if ending == ".parquet":
        with pytest.raises(ValueError, match="frames was 16 and is now 8"):
            Store(out, SETTINGS)


def test_every_row_names_the_model(tmp_path):
    with Store(tmp_path / "out.jsonl", SETTINGS) as store:
        store.add([Row("a.mp4", "What?", error="broken"), Row("b.mp4", "What?", answer="a")])
    assert {each["model"] for each in rows_of(tmp_path / "out.jsonl")} == {"tiny"}


def test_without_its_companion_parquet_knows_its_settings_and_jsonl_says_what_is_missing(tmp_path):
    for ending in ENDINGS:
        with Store(tmp_path / f"out{ending}", SETTINGS) as store:
            store.add([row(1)])
        store.run.unlink()
    with Store(tmp_path / "out.parquet", SETTINGS) as store:
        assert len(store) == 1
    with pytest.raises(ValueError, match="frames was 8"):
        Store(tmp_path / "out.parquet", {**SETTINGS, "frames": 9})
    with pytest.raises(ValueError, match=r"out\.jsonl\.run is missing.*--restart"):
        Store(tmp_path / "out.jsonl", SETTINGS)


def test_two_runs_on_one_output_are_refused(tmp_path):
    with (
        Store(tmp_path / "out.jsonl", SETTINGS),
        pytest.raises(RuntimeError, match=r"another run is writing out\.jsonl"),
    ):
        Store(tmp_path / "out.jsonl", SETTINGS)
    with Store(tmp_path / "out.jsonl", SETTINGS):
        pass


@pytest.mark.parametrize("ending", ENDINGS)
def test_errors_are_tried_again_on_request(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    failed = row(2, answer=None, error="vanished")
    with Store(out, SETTINGS) as store:
        store.add([row(1), failed, row(3)])
    with Store(out, SETTINGS) as store:
        assert len(store) == 3
    with Store(out, SETTINGS, retry_errors=True) as store:
        assert failed.key not in store
        store.add([row(2)])
    assert sorted(each["answer"] for each in rows_of(out)) == ["ä\n1", "ä\n2", "ä\n3"]


def test_a_full_disk_costs_the_batch_at_hand_and_says_what_was_saved(tmp_path):
    out = tmp_path / "out.jsonl"
    store = Store(out, SETTINGS)
    store.add([row(1), row(2)])
    size = store.run.stat().st_size
    with room(size + 100), pytest.raises(StoreError, match=r"2 rows are saved, those of the batch at hand are not"):
        store.add([row(number) for number in range(3, 9)])
    assert store.run.stat().st_size == size
    store.add([row(3)])  # room again
    store._file.close()
    with Store(out, SETTINGS) as again:
        assert len(again) == 3
    assert len(rows_of(out)) == 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_room_for_out_leaves_the_old_one_and_the_rows_beside_it(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    with Store(out, SETTINGS) as store:
        store.add([row(1)])
    before = out.read_bytes()
    store = Store(out, SETTINGS)
    store.add([row(number) for number in range(2, 40)])
    with room(1500), pytest.raises(StoreError, match=r"38 rows that are not in it yet are safe in .*\.run"):
        store.publish()
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.run"]
    store._file.close()
    with Store(out, SETTINGS):
        pass
    assert len(rows_of(out)) == 39


def test_a_run_survives_without_room_for_out_as_long_as_rows_can_be_kept(tmp_path, monkeypatch):
    """Publishing on the way fails and is told; the rows are durable all the same, and the end says so."""
    monkeypatch.setattr("holitom.corpus.store.PAUSE", 0.0)
    monkeypatch.setattr("holitom.corpus.store.SHARE", 0)
    out = tmp_path / "out.parquet"
    (tmp_path / "out.parquet.part").mkdir()
    store = Store(out, SETTINGS)
    for number in range(3):
        store.add([row(number)])
    with pytest.raises(StoreError, match="3 rows that are not in it yet are safe"):
        store.__exit__(None, None, None)
    (tmp_path / "out.parquet.part").rmdir()
    with Store(out, SETTINGS) as store:
        assert len(store) == 3


def test_names_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.parquet or \.jsonl"):
        Store(tmp_path / "out.csv", SETTINGS)
    (tmp_path / "out.parquet").write_bytes(b"no table" * 10)
    with pytest.raises(ValueError, match=r"out\.parquet is no Parquet file"):
        Store(tmp_path / "out.parquet", SETTINGS)
    (tmp_path / "out.jsonl").write_text("no row\n")
    (tmp_path / "out.jsonl.run").write_text(json.dumps(SETTINGS, sort_keys=True) + "\n")
    with pytest.raises(ValueError, match=r"out\.jsonl, line 1 is no row of this command"):
        Store(tmp_path / "out.jsonl", SETTINGS)


def test_totals_are_sums_of_rows():
    totals = Totals(expected=4)
    totals.add(row(1, visual_tokens_in=100, visual_tokens_out=10, prompt_tokens=120, prefill_flops=5))
    totals.begin()
    counts = {"full_prefill_flops": 50, "paper_flops": 2, "full_paper_flops": 8, "kv_bytes": 3, "full_kv_bytes": 30}
    totals.add(row(2, visual_tokens_in=100, visual_tokens_out=20, prompt_tokens=130, prefill_flops=5, **counts))
    totals.add(row(3, answer=None, error="broken", prompt_tokens=None))
    found = totals.summary(SETTINGS)
    assert (found["rows"], found["errors"], found["this_run"]["rows"]) == (3, 1, 2)
    assert totals.saved_tokens == 170
    ran = {"visual_tokens": 30, "prompt_tokens": 80, "prefill_flops": 10, "paper_flops": 2, "kv_cache_bytes": 3}
    assert found["compressed"] == ran
    assert found["ratio"]["paper_flops"] == 0.25
    assert found["uncompressed"]["prompt_tokens"] == 250
    assert found["ratio"]["visual_tokens"] == pytest.approx(0.15)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'holitom\[corpora\]', or use a \.jsonl file"):
        Store(tmp_path / "out.parquet", SETTINGS)
    Store(tmp_path / "out.jsonl", SETTINGS).__exit__(None, None, None)
