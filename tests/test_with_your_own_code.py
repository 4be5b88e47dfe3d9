"""docs/with_your_own_code.md: every block runs, on the bundled checkpoint; those that need a package, where it is."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from test_docs import CHECKPOINT, ROOT

from holitom.cli.loading import TINY
from holitom.runtime import Session

PAGE = ROOT / "docs" / "with_your_own_code.md"
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """All sessions that were made, in order."""
    found: list[Session] = []
    make = Session.__init__

    def note(self: Session, *args: object, **options: object) -> None:
        found.append(self)
        make(self, *args, **options)

    monkeypatch.setattr(Session, "__init__", note)
    return found


EAGERLY = functools.partial(torch.compile, backend="eager")  # other backends take minutes


@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(lambda forward: forward, id="as it is"),
        pytest.param(EAGERLY, id="compiled", marks=pytest.mark.slow),
    ],
)
def test_the_blocks_run_and_compress(
    compiled: Callable, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: list[Session]
):
    """By default torch.compile() leaves the model as it is; tests/test_runtime_compiled.py compiles decode steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", compiled)
    shutil.copy(film, tmp_path / "film.mp4")
    names: dict[str, object] = {"__name__": "page"}
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    answers = []
    for number, (package, block) in enumerate(blocks, 1):
        if package and find_spec(package) is None:
            continue
        code = block.replace(CHECKPOINT, str(TINY)).replace("32)", "8)")
        exec(compile(code, f"{PAGE.name}, block {number}", "exec"), names)
        if "HoliTom(retention" not in block:
            continue
        assert len(sessions) == len(answers) + 1, block
        full, entering, _ = sessions[-1].summary().visual_tokens
        assert 0 < entering < 0.5 * full, block
        start = names["inputs"]["input_ids"].shape[1]
        answers.append(names["ids"][0, start:].tolist())
    assert len(answers) >= 6
    assert names["answers"][0]["generated_text"].strip() == names["processor"].decode(
        answers[0], skip_special_tokens=True
    )
    for answer in answers[2:]:
        assert answer == answers[0] or answer[0] == answers[0][0], "one model, wrapped or not, says one thing"
