"""examples/: each runs as it stands, offline, and compresses; the notebook gives the outputs that are saved in it."""

from __future__ import annotations

import re
import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_docs import ROOT

EXAMPLES = ROOT / "examples"
NEEDS = {"peft_adapter": "peft", "eight_bit": "torchao"}
ELSEWHERE = {"openai_client.py", "offline.py", "compare_methods.py", "corpus.py"}  # the first: tests/serving
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.name not in ELSEWHERE)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with the neighbours that `python examples/NAME.py` finds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_and_compresses(name: str, capsys: pytest.CaptureFixture[str]):
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed, which it is about")
    example(name)["main"]([])
    printed = capsys.readouterr().out
    counts = re.search(r": (\d+) visual tokens, (\d+) enter|(?P<some>[\d,]+) of (?P<all>[\d,]+) visual tokens", printed)
    assert counts, printed
    whole, some = (int(count.replace(",", "")) for count in (counts[1] or counts["all"], counts[2] or counts["some"]))
    assert 0.1 * whole < some < 0.3 * whole
    assert re.match(r"[\w ?]+\n", printed)


def test_film_and_question_may_be_the_users(capsys: pytest.CaptureFixture[str]):
    offline, ask = example("offline"), example("ask_about_a_video")
    ask["main"]([])
    ask["main"]([str(next(offline["clips"](1).glob("*.mp4"))), offline["QUESTION"]])
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]
    with pytest.raises(SystemExit, match="synthetic clip"):
        ask["main"](["film.mp4"])


def test_methods_are_compared(capsys: pytest.CaptureFixture[str]):
    compare = example("compare_methods")
    compare["main"]()
    printed = capsys.readouterr().out
    for name in compare["METHODS"]:
        assert re.search(rf"^{re.escape(name)} +\S+ +\d+ +\d+ +\d+\.\d%$", printed, re.MULTILINE), name


def test_a_corpus_becomes_a_table(capsys: pytest.CaptureFixture[str]):
    example("corpus")["main"]([])
    assert 0.2 < float(re.search(r"'visual_tokens': ([\d.]+)", capsys.readouterr().out)[1]) < 0.3
    assert len(Path("answers.jsonl").read_text("utf-8").splitlines()) == 4 * 2


def test_the_list_names_them_all():
    listed = re.findall(r"^\| \[[\w.]+\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))


@pytest.mark.slow
def test_the_notebook_gives_what_is_saved_in_it(tmp_path: Path):
    """Outputs of the same kinds, text with the same lines: each begins alike. Answers may differ with the processor."""
    pytest.importorskip("nbclient", reason="nbclient is not installed, which runs notebooks")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed, in which notebooks run")
    tour = runpy.run_path(str(ROOT / "docs" / "refresh.py"), run_name="refresh")
    saved, again = tour["read_notebook"](), tour["run_notebook"](tmp_path)
    for number, (old, new) in enumerate(zip(saved.cells, again.cells, strict=True)):
        assert [kinds(each) for each in old.get("outputs", [])] == [kinds(each) for each in new.get("outputs", [])]
        assert beginnings(old) == beginnings(new), f"cell {number}: run `python docs/refresh.py notebook`"
    shown = [kind for cell in again.cells for each in cell.get("outputs", []) for kind in kinds(each)]
    assert {"image/png", "text/html"} <= set(shown)


def kinds(output: Any) -> list[str]:
    return sorted(output["data"]) if "data" in output else [output["name"]]


def beginnings(cell: Any) -> list[list[str]]:
    shown = [each.get("text") or each["data"]["text/plain"] for each in cell.get("outputs", [])]
    return [[line.partition("  ")[0][:12] for line in text.splitlines()] for text in shown]
