"""Commands that pages show: `holitom` understands them, make has the targets, scripts are there; the cheap ones run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from test_docs import CHECKPOINT, PAGES, ROOT
from typer.testing import CliRunner

from holitom.cli import app
from holitom.cli.loading import TINY
from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_mp4

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:\$ )?(?:holitom [a-z-]|make [a-z]|python \S)")  # `holitom  27.2` is a row of a table
CHEAP = {"ask", "show", "methods", "models", "clips", "--help", "--version"}  # seconds, with the bundled model


def shown(text: str) -> list[list[str]]:
    """The commands in a page's blocks, as words."""
    lines = []
    for language, block in FENCE.findall(text):
        if language in ("", "console", "sh", "bash"):
            lines += block.replace("\\\n", " ").splitlines()
    commands = [line.removeprefix("$ ") for line in lines if COMMAND.match(line)]
    return [shlex.split(command, comments=True) for command in commands]


COMMANDS = [(page, words) for page in PAGES for words in shown(page.read_text("utf-8"))]
OURS = list(dict.fromkeys(tuple(words[1:]) for _, words in COMMANDS if words[0] == "holitom"))


def parse(arguments: list[str]) -> None:
    """Fails as the command line would, without running anything."""
    command, name = typer.main.get_command(app), "holitom"
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"{name} has no command {arguments[0]}"
        command, name, arguments = command.commands[arguments[0]], f"{name} {arguments[0]}", arguments[1:]
    with command.make_context(name, list(arguments), resilient_parsing="--help" in arguments):
        pass


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_the_command_line_understands_what_pages_show(arguments: tuple[str, ...]):
    parse(list(arguments))


def test_pages_show_commands():
    assert {arguments[0] for arguments in OURS} >= {"ask", "show", "eval", "bench", "demo", "methods", "models"}


@pytest.mark.parametrize("wrong", ["ask film.mp4", "show film.mp4 --colour red", "tell"])
def test_what_no_command_takes_is_found(wrong: str):
    with pytest.raises(Exception, match=r"(?i)question|colour|tell"):
        parse(wrong.split())


@pytest.mark.parametrize("arguments", [each for each in OURS if each[0] in CHEAP], ids=" ".join)
def test_the_cheap_ones_run(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_mp4(suite("test", 1)[0].frames, tmp_path / "film.mp4")
    result = CliRunner().invoke(app, [word.replace(CHECKPOINT, str(TINY)) for word in arguments])
    assert result.exit_code == 0, result.output


def test_targets_and_scripts_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    checked = 0
    for page, words in COMMANDS:
        if words[0] == "make":
            assert words[1] in targets, f"{page.name}: make {words[1]}"
            checked += 1
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), f"{page.name}: {words[1]}"
            checked += 1
    for page in PAGES:
        for script in re.findall(r"`python ((?:docs|benchmarks|examples|scripts)/\S+?\.py)", page.read_text("utf-8")):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
            checked += 1
    assert checked > 5
