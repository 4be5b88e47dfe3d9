"""Which videos and questions a run is about."""

from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holitom.corpus import list_questions, list_videos
from holitom.corpus.batches import groups, pack
from holitom.corpus.sources import fetched


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("b.mp4", "a.MKV", "below/c.webm", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(items):
    return [item.path.rpartition("/")[2] for item in items]


def test_a_folder_a_pattern_and_a_file(folder):
    assert names(list_videos(str(folder))) == ["a.MKV", "b.mp4", "c.webm"]
    assert names(list_videos(f"{folder}/*.mp4")) == ["b.mp4"]
    assert names(list_videos(f"{folder}/**/*.webm")) == ["c.webm"]
    assert names(list_videos(f"{folder}/b.mp4")) == ["b.mp4"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_paths(folder, ending, caplog):
    paths = ["b.mp4", f"{folder}/a.MKV", "memory://store/far.mp4", "b.mp4"]
    table = folder / f"list.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"id": list(range(4)), "video": paths}), table)
    elif ending == "jsonl":
        table.write_text("\n".join(f'{{"id": {number}, "video": "{path}"}}' for number, path in enumerate(paths)))
    else:
        comma = "," if ending == "csv" else "\t"
        table.write_text(f"id{comma}video\n" + "".join(f"{number}{comma}{path}\n" for number, path in enumerate(paths)))
    items = list_videos(str(table))
    assert [item.path for item in items] == paths[:3]
    assert [item.address for item in items] == [f"{folder}/b.mp4", f"{folder}/a.MKV", "memory://store/far.mp4"]
    assert "1 videos more than once" in caplog.text
    with pytest.raises(ValueError, match=r"no column 'clip': it has 'id', 'video'"):
        list_videos(str(table), "clip")


def test_a_remote_store():
    store = fsspec.filesystem("memory")
    store.pipe({"/archive/x.mp4": b"film", "/archive/deep/y.mov": b"film", "/archive/z.txt": b"text"})
    assert names(list_videos("memory://archive")) == ["y.mov", "x.mp4"]
    assert names(list_videos("memory://archive/*.mp4")) == ["x.mp4"]
    with fetched(list_videos("memory://archive/*.mp4")[0].address) as path:
        assert path.read_bytes() == b"film"
    assert not path.exists()


def test_sources_without_videos_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*nowhere: give a folder"):
        list_videos(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no video"):
        list_videos(str(tmp_path))
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4"}\n{"path": 3}\n')
    with pytest.raises(ValueError, match="row 2: column 'path' must hold text, got 3"):
        list_videos(str(tmp_path / "list.jsonl"))
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4"}\n{"path": \n')
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        list_videos(str(tmp_path / "list.jsonl"))


def test_questions(tmp_path):
    (tmp_path / "asked.txt").write_text("What?\n\n  Who? \n")
    (tmp_path / "asked.csv").write_text('task,question\na,"What, where?"\n')
    assert list_questions(["When?"], str(tmp_path / "asked.txt")) == ("When?", "What?", "Who?")
    assert list_questions([], str(tmp_path / "asked.csv")) == ("What, where?",)
    with pytest.raises(ValueError, match="there is nothing to ask"):
        list_questions([], None)
    with pytest.raises(ValueError, match=r"asked more than once: 'What\?'"):
        list_questions(["What?"], str(tmp_path / "asked.txt"))


def test_batches_hold_like_lengths_and_keep_to_the_budget():
    lengths = [5, 9, 1, 9, 8, 2, 30]
    batches = pack(lengths, 18)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert batches == [[6], [1, 3], [4, 0], [5, 2]]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 18
    assert list(groups([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
