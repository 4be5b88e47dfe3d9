"""The recipe for methods in packages of their own, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "docs" / "add_a_method.md").read_text()


def run(*command: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "120"}
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of the recipe in a folder, and the folder where pip put the package, without a network."""
    folder = tmp_path_factory.mktemp("loudest")
    files = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", RECIPE, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["pyproject.toml", "loudest_tokens.py", "try_it.py"]
    for name, text in files:
        (folder / name).write_text(text)
    site = folder / "site"
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    assert "$ pip install ." in RECIPE
    done = run(sys.executable, "-m", "pip", "install", *offline, "--target", str(site), ".", site=site, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, site


def test_the_method_works_in_a_program(package: tuple[Path, Path]) -> None:
    folder, site = package
    done = run(sys.executable, "try_it.py", site=site, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Loudest(retention=0.1)" in done.stdout
    assert "Merge(392 -> 39 tokens" in done.stdout


def test_the_method_is_in_the_command_lines_catalogue(package: tuple[Path, Path]) -> None:
    folder, site = package
    assert "$ holitom methods" in RECIPE
    command = "import sys; sys.argv = ['holitom', 'methods']; from holitom.cli import main; main()"
    done = run(sys.executable, "-c", command, site=site, cwd=folder)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "loudest" in line)
    assert "exact" in line
    assert "example.org/loudest" in line


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("loudest_tokens:Nothing", "cannot be imported"),
        ("no_such_module:Thing", "cannot be imported"),
        ("json:dumps", "dataclass that derives from holitom.Method"),
        ("holitom.methods:EVS", "must be the same"),
    ],
)
def test_a_broken_entry_point_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, says: str) -> None:
    from holitom.methods import method_class

    install_entry_point(tmp_path, "mine", target)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TypeError, match=says) as error:
        method_class("mine")
    assert "'broken-methods'" in str(error.value)


def test_a_taken_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holitom.methods import names, parse

    install_entry_point(tmp_path, "evs", "somewhere:Else")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="takes the name"):
        names()
    assert parse("evs").name == "evs"  # this package's own methods keep working


def install_entry_point(folder: Path, name: str, target: str) -> None:
    info = folder / "broken_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[holitom.methods]\n{name} = {target}\n")
