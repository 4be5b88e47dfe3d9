"""The command line starts without torch, so that it can say how torch's threads are to wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def tell(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_commands_are_there_before_torch_is():
    assert tell("import sys, holitom.cli; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("words", [[], ["--help"], ["ask", "--help"]], ids=["import", "help", "help of ask"])
def test_importing_holitom_and_its_help_load_nothing_large(words):
    """Counted here; `benchmarks/startup.py` takes the time."""
    code = "import sys, holitom; "
    if words:
        code += "import contextlib, io; from holitom.cli import app; said = io.StringIO()\n"
        code += f"with contextlib.redirect_stdout(said): app({words}, standalone_mode=False)\n"
        code += "assert 'Usage' in said.getvalue(); "
    code += "large = {'torch', 'transformers', 'numpy', 'PIL', 'av', 'huggingface_hub'}; "
    more = {0: "{'rich', 'typer'}", 1: "{'rich', 'holitom.cli.ask'}"}.get(len(words), "set()")
    assert tell(code + f"print(*sorted((large | {more}) & sys.modules.keys()))") == ""


def test_listing_the_methods_loads_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from holitom.cli import app; "
        "found = CliRunner().invoke(app, ['methods']); assert found.exit_code == 0, found.output; "
        "print('holitom' in found.output, 'torch' in sys.modules)"
    )
    assert tell(code) == "True False"


ASK = "import os; from holitom.cli.threads import wait_briefly; wait_briefly(); print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.fixture(scope="module")
def with_torch() -> list[str]:
    """What one process says, line by line, in which torch is loaded by the first name that needs it."""
    code = (
        "import sys, holitom; print('torch' in sys.modules, holitom.merge.DROPPED, holitom.ops.segment.__name__)\n"
        "print(sorted(set(holitom.__all__) - set(dir(holitom))), holitom.HoliTom().retention)\n"
    )
    return tell(code + ASK).splitlines()


def test_modules_are_there_as_attributes(with_torch):
    assert with_torch[0] == "False -1 segment"


def test_public_names_are_there_all_the_same(with_torch):
    assert with_torch[1] == "[] 0.1"
    with pytest.raises(ImportError):
        from holitom import nothing_of_that_name  # noqa: F401


def test_threads_wait_briefly_unless_somebody_decided_otherwise(with_torch):
    assert tell(ASK) == "5000"
    assert tell(ASK, GOMP_SPINCOUNT="7") == "7"
    assert tell(ASK, OMP_WAIT_POLICY="active") == "None"
    assert with_torch[2] == "None", "too late for it"
