"""The README and the pages in docs/: their code runs, their links lead somewhere, their samples are of this version.

All ```python blocks of a page run in order, in one namespace that holds ``model`` and ``inputs`` (a tiny random model
and a prompt with a video) and ``path`` (of the bundled model), in a folder with a ``film.mp4`` and a ``clip.mp4``.
Blocks that begin with ``>>>`` must also print what they say. The address of a real checkpoint stands for the bundled
model. Pages that another test file names are run there.
"""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from models import llava_onevision, padded, prompt, video
from typer.testing import CliRunner

from holitom import __version__
from holitom.cli import app
from holitom.cli.loading import TINY
from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_clips

TESTS = Path(__file__).parent
ROOT = TESTS.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "training" / "README.md",
    TINY / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
CHECKPOINT = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
SAMPLE = re.compile(r"<!-- sample: holitom (.*?) -->\n```text\n(.*?)```", re.DOTALL)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def run_elsewhere(page: Path) -> bool:
    if page.parent != ROOT / "docs":
        return False
    others = [path for path in TESTS.glob("test_*.py") if path.name != Path(__file__).name]
    return any(f'"{page.name}"' in path.read_text("utf-8") for path in others)


RUN_HERE = [page for page in PAGES if blocks(page) and not run_elsewhere(page)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_the_code_of_a_page_runs(page: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("film.mp4", "clip.mp4"):
        shutil.copy(film, tmp_path / name)
    names = {
        "__name__": "page",
        "path": str(TINY),
        "model": llava_onevision(),
        "inputs": {**padded([prompt(6)]), "pixel_values_videos": video(6)},
    }
    for number, block in enumerate(blocks(page)):
        code = block.replace(CHECKPOINT, str(TINY))
        if not code.startswith(">>>"):
            exec(compile(code, f"{page.name}, block {number + 1}", "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), 0)
        runner = doctest.DocTestRunner(verbose=False)
        failures: list[str] = []
        runner.run(example, out=failures.append, clear_globs=False)
        names.update(example.globs)
        assert not failures, "".join(failures)


def test_the_readme_and_how_it_works_are_run():
    assert set(map(name_of, RUN_HERE)) >= {"README.md", "docs/how_it_works.md", "holitom/assets/tiny/README.md"}
    assert CHECKPOINT in "".join(blocks(ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


def test_extras_that_are_named_exist():
    """In messages, docstrings and pages; a wrong one is installed without an error, and without the package."""
    section = (ROOT / "pyproject.toml").read_text("utf-8").split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = set(re.findall(r"^([a-z-]+) = ", section, re.MULTILINE))
    texts = [path.read_text("utf-8") for path in (*PAGES, *(ROOT / "holitom").rglob("*.py"))]
    named = set(re.findall(r"holitom\[([a-z-]+)\]", "".join(texts)))
    assert len(named) > 3
    assert named <= extras


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


HEADLINE = re.compile(r"LLM prefill ([\d.]+) times as fast")


def test_the_sample_in_the_readme_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Row by row; times may differ threefold, the answer by its words, what follows from shapes not at all."""
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path, 1)
    command, shown = next(sample for sample in SAMPLE.findall(README) if sample[0].startswith("ask "))
    result = CliRunner().invoke(app, shlex.split(command), env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    texts = [[line.rstrip() for line in text.splitlines()] for text in (shown, result.stdout)]
    old, new = (float(HEADLINE.search(text[2])[1]) for text in texts)
    assert 1 / 3 < old / new < 3, "run `python docs/refresh.py`"
    rows = [[re.split(r"\s{2,}", HEADLINE.sub("", line).strip()) for line in text[1:]] for text in texts]
    assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]], "run `python docs/refresh.py`"
    by_shape = [
        (row, other)
        for row, other in zip(*rows, strict=True)
        if row[0].startswith(("visual tokens", "prefill FLOPs", "KV cache"))
    ]
    assert len(by_shape) == 4
    for row, other in by_shape:
        assert row == other, "run `python docs/refresh.py`"
        assert float(row[3]) < 0.5


def test_the_measured_run_of_the_demo_is_the_makefiles_and_shows_a_gain(tmp_path: Path):
    """Its text is that of the command at the size of a test; its own figures are those of `python docs/refresh.py`."""
    command, shown = next(sample for sample in SAMPLE.findall(README) if sample[0].startswith("bench "))
    recipe = re.search(
        r"^REAL_SHAPE := (.*?)\n(?!\t)", (ROOT / "Makefile").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert shlex.split(command)[1:] == shlex.split(recipe[1].replace("\\\n", " "))
    small = [*shlex.split(command), "--preset", "tiny", "--repeats", "1", "--warmup", "0"]
    result = CliRunner().invoke(app, small, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    printed = "\n".join(line.rstrip() for line in result.stdout.splitlines())
    texts = [text[text.index("tokens  FLOPs") :] for text in (shown, printed)]
    rows = [re.findall(r"^(\d)  ([a-z|]+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.,]+", text, re.MULTILINE) for text in texts]
    assert rows[0] == rows[1] == [("1", "uncompressed"), ("2", "holitom"), ("3", "renewal|spread")]
    videos = [text[text.index("video: ") :].split() for text in texts]  # lines end where the terminal does
    assert videos[0] == videos[1]
    gain = float(re.search(r"^3  \S+ +\S+ +\S+ +\S+ +\S+ +(\S+)", texts[0], re.MULTILINE)[1])
    assert gain > 1.5


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_picture_is_small():
    picture = ROOT / "docs" / "images" / "patches.png"
    assert picture.name in README
    assert 20_000 < picture.stat().st_size < 200_000


def test_the_picture_can_be_drawn_again(tmp_path: Path):
    figures = runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="figures")
    clip = suite("test", 1)[0]
    record, full, said = figures["compress"](clip, figures["Spread"](retention=0.10))
    assert full == said, "the picture is of a clip of which the model still knows enough"
    figures["save"](figures["draw"](clip, record, (full, said)), tmp_path / "again.png")
    assert (tmp_path / "again.png").stat().st_size < 200_000


def test_the_steps_can_be_drawn_again(tmp_path: Path):
    """And one segment of all frames saves less than the cut, as the page says below the picture."""
    figures = runpy.run_path(str(ROOT / "docs" / "step_figures.py"), run_name="step_figures")
    found = figures["follow"]()
    run = found.runs[0]
    links = found.similarity > run.threshold
    assert (found.frames - 1) * int(links.all(0).sum()) < sum(run.gains)
    assert len(run.gains) == 3
    for name in ("steps", "cut"):
        figures["save"](figures[name](found), tmp_path / f"{name}.png")
        assert 5_000 < (tmp_path / f"{name}.png").stat().st_size < 200_000
