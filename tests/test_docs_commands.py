"""Commands that pages show, in their blocks and in their text: each runs here, or has a reason here why not.

What does not run is still checked: `holitom` must understand its words, make have the target, a script the options.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main
from test_docs import CHECKPOINT, PAGES, ROOT
from typer.testing import CliRunner

from holitom.cli import app
from holitom.cli.loading import TINY

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:holitom|make|python|scripts/\w+\.sh|pip|\.venv[\w/.-]+) [^`]+|scripts/\w+\.sh)`(?!`)")
STARTS = re.compile(r"(?:\$ )?(?:holitom [a-z-]|make [a-z]|python3? \S|pip |export |scripts/|\.venv)")

NOT_RUN = {
    r"holitom serve": "becomes a server of vLLM: tests/serving, tests/test_serve_command.py",
    r"holitom demo": "serves until Ctrl-C: tests/test_demo.py, tests/browser",
    r"holitom eval": "minutes: tests/test_evaluation.py, shorter",
    r"holitom bench": "minutes, and gigabytes of random weights: tests/test_bench_command.py, with the smallest preset",
    r"holitom caption.* --ray": "needs the extra ray: make ray",
    r"holitom caption 's3://|holitom caption.* list.csv|holitom caption.* --questions": (
        "files and buckets of the user's: tests/test_corpus_sources.py, tests/test_corpus_run.py"
    ),
    r"make ": "installs: .ci/run, which CI runs",
    r"(\.venv\S*/)?(bin/)?pip |python3 -m venv|\.venv-test/bin/pre-commit": "fetches packages: make does so in CI",
    r"\.venv-test/bin/python -m pytest": "runs tests",
    r"export ": "sets the environment of what follows",
    r"python -m training": "trains for hours: training/README.md",
    r"python benchmarks/|scripts/": "measures for minutes to hours, some on a GPU",
    r"python docs/": "rewrites the repository: tests/test_docs.py and others call what is in them",
    r"python examples/openai_client.py": "asks a server: tests/serving",
    r"python examples/": "tests/test_examples.py",
}


def fenced(text: str) -> list[str]:
    """The commands in a page's blocks: what stands behind `$`, or looks like one where none does."""
    lines = []
    for language, block in FENCE.findall(text):
        if language in ("", "console", "sh", "bash"):
            lines += block.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ") or STARTS.match(line)]


def inline(text: str) -> list[str]:
    """Those between backticks, which may leave arguments out."""
    return [" ".join(line.split()) for line in INLINE.findall(FENCE.sub("", text))]


FENCED = list(dict.fromkeys(line for page in PAGES for line in fenced(page.read_text("utf-8"))))
INLINED = list(dict.fromkeys(line for page in PAGES for line in inline(page.read_text("utf-8"))))
OURS = [tuple(shlex.split(line, comments=True)[1:]) for line in FENCED if line.startswith("holitom ")]


def reason(line: str) -> str | None:
    """Why a command does not run here."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), None)


RUN = [line for line in FENCED if reason(line) is None]


def parse(arguments: list[str]) -> None:
    """Fails as the command line would, without running anything."""
    command, name = typer.main.get_command(app), "holitom"
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"{name} has no command {arguments[0]}"
        command, name, arguments = command.commands[arguments[0]], f"{name} {arguments[0]}", arguments[1:]
    with command.make_context(name, list(arguments), resilient_parsing="--help" in arguments):
        pass


def check_script(words: list[str]) -> None:
    """That a script is there and knows the options that it is given."""
    path = ROOT / words[0]
    assert path.is_file(), words[0]
    source = path.read_text("utf-8")
    for word in words[1:]:
        if path.suffix == ".py" and word.startswith("-"):
            assert f'"{word}"' in source, f"{words[0]} has no option {word}"


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_the_command_line_understands_what_pages_show(arguments: tuple[str, ...]):
    parse(list(arguments))


def test_pages_show_commands():
    assert {arguments[0] for arguments in OURS} >= {"ask", "show", "eval", "bench", "demo", "methods", "models"}
    assert len(RUN) > 12


@pytest.mark.parametrize("wrong", ["ask film.mp4", "show film.mp4 --colour red", "tell"])
def test_what_no_command_takes_is_found(wrong: str):
    with pytest.raises(Exception, match=r"(?i)question|colour|tell"):
        parse(wrong.split())


def test_every_reason_is_needed():
    for pattern in NOT_RUN:
        assert any(re.match(pattern, line) for line in [*FENCED, *INLINED]), pattern


@pytest.mark.parametrize("line", RUN)
def test_it_runs(line: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the bundled model and a synthetic clip in place of the checkpoints and films that a page names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, tmp_path / "model")
    for place in (".", "films", "archive", "videos", "clips"):
        (tmp_path / place).mkdir(exist_ok=True)
        shutil.copy(film, tmp_path / place / "film.mp4")
    words = shlex.split(line, comments=True)
    assert words[0] == "holitom", f"{line} neither runs here nor has a reason why not"
    there = [re.sub(f"{CHECKPOINT}|path/to/checkpoint", "model", word) for word in words[1:]]
    result = CliRunner().invoke(app, [*there, *(["--workers", "0"] if words[1] == "caption" else [])])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", [line for line in (*FENCED, *INLINED) if not line.startswith("holitom ")])
def test_targets_scripts_and_their_options_are_there(line: str):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "python" and words[1] != "-m":
        check_script(words[1:])
    elif words[0].startswith("scripts/"):
        check_script(words)
    elif "-m" in words and words[words.index("-m") + 1].startswith("training."):
        name = words[words.index("-m") + 1].replace(".", "/")
        check_script([f"{name}.py", *words[words.index("-m") + 2 :]])
    assert reason(line) is not None


def test_extras_that_are_named_are_there():
    """In pages and in what the package tells a user to install."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    section = re.search(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, re.DOTALL | re.MULTILINE)[1]
    extras = set(re.findall(r"^([a-z-]+) = ", section, re.MULTILINE))
    for path in (*PAGES, *(ROOT / "holitom").rglob("*.py"), *(ROOT / "examples").glob("*.*")):
        for named in re.findall(r"holitom\[([a-z,-]+)\]", path.read_text("utf-8")):
            assert set(named.split(",")) <= extras, f"{path.name}: holitom[{named}]"


@pytest.mark.parametrize("line", [line for line in INLINED if line.startswith("holitom ")])
def test_commands_in_the_text_have_the_options_that_they_name(line: str):
    command, words = typer.main.get_command(app), line.split()[1:]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert command.name != "holitom", line
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known
