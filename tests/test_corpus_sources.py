"""Which videos and questions a run is about."""

from __future__ import annotations

import os
import re

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media import write_video

from holitom.corpus import list_questions, list_videos
from holitom.corpus.run import Plan, pack
from holitom.corpus.sources import Item
from holitom.video.remote import fetched


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
    with pytest.raises(ValueError, match=r"there is no .*gone\.csv"):
        list_videos(str(tmp_path / "gone.csv"))
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4"}\n{"path": 3}\n')
    with pytest.raises(ValueError, match="row 2: column 'path' must hold text, got 3"):
        list_videos(str(tmp_path / "list.jsonl"))
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4"}\n{"path": \n')
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        list_videos(str(tmp_path / "list.jsonl"))


def test_folders_take_what_is_a_video_by_its_content_and_say_what_is_left_out(tmp_path, caplog):
    from PIL import Image

    (tmp_path / "below").mkdir()
    for name in ("film.mp4", "below/capture", "shots.dat"):
        write_video(tmp_path / "made.mp4", 4).rename(tmp_path / name)
    (tmp_path / "broken.mkv").write_bytes(b"cut off")  # by its name it should be one: a row with its error
    still = Image.new("RGB", (32, 32), "red")
    still.save(tmp_path / "moves.webp", save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")])
    still.save(tmp_path / "photo.JPG")
    (tmp_path / "notes.txt").write_text("What to film:\n1. The lake.\n" * 20)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").touch()
    found = [item.path.removeprefix(f"{tmp_path}/") for item in list_videos(str(tmp_path))]
    assert found == ["below/capture", "broken.mkv", "film.mp4", "moves.webp", "photo.JPG", "shots.dat"]
    assert "3 files that are no videos are left out" in caplog.text
    assert all(name in caplog.text for name in ("notes.txt", "table.csv", "empty"))


@pytest.mark.skipif(os.name != "posix", reason="names as bytes")
def test_names_that_are_no_utf8_are_spelled_out(tmp_path):
    folder, literal = os.fsencode(tmp_path), tmp_path / r"caf\xe9.mp4"
    literal.write_bytes(b"another name")
    with open(folder + b"/caf\xe9.mp4", "wb") as file:
        file.write(b"film")
    items = list_videos(str(tmp_path))
    assert sorted(item.path.removeprefix(f"{tmp_path}/").partition(" ")[0] for item in items) == [r"caf\xe9.mp4"] * 2
    assert len({item.path for item in items}) == 2
    assert {os.fsencode(item.address) for item in items} == {folder + b"/caf\xe9.mp4", os.fsencode(literal)}
    assert all(item.path.encode("utf-8") for item in items)
    assert len(list_videos(os.fsdecode(folder + b"/caf\xe9.mp4"))) == 1


def test_tables_as_spreadsheets_write_them(folder, caplog):
    for name, data in {
        "wide.csv": "id,path\r\n1,ä.mp4\r\n2,b.mp4\r\n".encode("utf-16"),
        "german.csv": "id;path\n1;ä.mp4\n2;b.mp4\n".encode("utf-8-sig"),
        "tabs.csv": "id\tpath\n1\tä.mp4\n2\tb.mp4\n".encode(),
        "list [1]?.csv": 'id,path\n1,"ä.mp4"\n2,b.mp4\n'.encode(),
        "line [a].jsonl": '{"path": "ä.mp4", "note": "one\u2028two\u0085three"}\n{"path": "b.mp4"}\n'.encode(),
    }.items():
        (folder / name).write_bytes(data)
        assert [item.path for item in list_videos(str(folder / name))] == ["ä.mp4", "b.mp4"], name
        assert [item.address for item in list_videos(str(folder / name))] == [f"{folder}/ä.mp4", f"{folder}/b.mp4"]
    (folder / "film [2].mp4").write_bytes(b"x")
    assert names(list_videos(f"{folder}/film [2].mp4")) == ["film [2].mp4"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("latin.csv", "path\nä.mp4\n".encode("latin-1"), "latin.csv is neither UTF-8 nor UTF-16 text (at byte 5)"),
        ("bare.csv", "path\na.mp4\n".encode("utf-16-le"), "bare.csv is no text file, or UTF-16 without its mark"),
        ("comma.csv", b"path,n\na,b.mp4,1\n", "comma.csv, row 1 has more columns than the first line"),
        ("two.csv", b"a,b\n1,2\n", "two.csv has no column 'path' or 'video'"),
        ("false.parquet", b"no table", "false.parquet is no Parquet file"),
        ("gap.csv", b"n,path\n1,a.mp4\n2\n", "gap.csv, row 2: column 'path' must hold text, got None"),
    ],
)
def test_tables_that_cannot_be_read_are_named(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(says)):
        list_videos(str(tmp_path / name))


def test_questions(tmp_path):
    (tmp_path / "asked.txt").write_text("What?\n\n  Who? \n")
    (tmp_path / "asked.csv").write_text('task,question\na,"What, where?"\n')
    assert list_questions(["When?"], str(tmp_path / "asked.txt")) == ("When?", "What?", "Who?")
    assert list_questions([], str(tmp_path / "asked.csv")) == ("What, where?",)
    (tmp_path / "wide.txt").write_text("Was? \n", encoding="utf-16")
    assert list_questions([], str(tmp_path / "wide.txt")) == ("Was?",)
    with pytest.raises(ValueError, match="there is nothing to ask"):
        list_questions([], None)
    with pytest.raises(ValueError, match="the question is empty"):
        list_questions(["What?", "  "], None)
    with pytest.raises(ValueError, match=r"'\\udce9' is no UTF-8 text"):
        list_questions(["\udce9"], None)
    with pytest.raises(ValueError, match=r"asked more than once: 'What\?'"):
        list_questions(["What?"], str(tmp_path / "asked.txt"))


def test_batches_hold_like_lengths_and_keep_to_the_budget():
    lengths = [5, 9, 1, 9, 8, 2, 30]
    batches = pack(lengths, 18)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert batches == [[6], [1, 3], [4, 0], [5, 2]]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 18


def test_groups_are_neighbours_however_much_of_them_is_finished():
    items = [Item(str(number), "") for number in range(5)]
    plan = Plan(items, ("What?",), group=2)
    assert plan.left(()) == [items[:2], items[2:4], items[4:]]
    assert plan.left([(item.path, "What?") for item in items[:3]]) == [items[2:4], items[4:]]
    assert plan.left((item.path, "What?") for item in items) == []
