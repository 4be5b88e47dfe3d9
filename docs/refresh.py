"""Renews what the pages show of real runs: output below each `<!-- sample: ... -->`, the notebook and all pictures.

    python docs/refresh.py                      everything
    python docs/refresh.py ask recommend        the samples of these commands alone
    python docs/refresh.py notebook pictures    examples/tour.ipynb; pictures, and what `holitom` lists and recommends

Run it after a change of the bundled model or of what the commands print. Times in the output are those of
this machine; the measured run of the README (`bench`) alone takes two minutes of processor time. The notebook needs
nbclient and ipykernel, of the extra `dev`.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
SAMPLE = re.compile(r"(<!-- sample: holitom (?P<command>.*?) -->\n```text\n)(?P<output>.*?)(```)", re.DOTALL)
TOUR = ROOT / "examples" / "tour.ipynb"
SCRIPTS = ("method_catalogue.py", "measured.py", "figures.py", "step_figures.py", "method_figures.py")


def holitom(command: str, folder: str) -> str:
    """Runs the command line in a folder and returns what it printed."""
    call = [sys.executable, "-c", "from holitom.cli import main; main()", *shlex.split(command)]
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def samples(parts: list[str]) -> None:
    """Rewrites the output of the named commands in the README and in docs/, in place; of all where none is named."""

    def renew(match: re.Match[str]) -> str:
        wanted = not parts or match["command"].split()[0] in parts
        return match[1] + holitom(match["command"], folder) + match[4] if wanted else match[0]

    with tempfile.TemporaryDirectory() as folder:
        holitom("clips make --number 1 --out .", folder)
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
            page.write_text(SAMPLE.sub(renew, page.read_text("utf-8")), "utf-8")


def read_notebook() -> Any:
    """The notebook as it is saved."""
    import nbformat

    return nbformat.read(TOUR, as_version=4)


def in_few_colours(picture: str) -> str:
    """A PNG in base64 with 256 colours: small enough for a repository."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as full:
        few = full.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    made = io.BytesIO()
    few.save(made, format="png", optimize=True)
    return base64.b64encode(made.getvalue()).decode()


def run_notebook(folder: str | Path) -> Any:
    """The notebook, run from top to bottom in a folder, without progress bars and what else goes to stderr."""
    from nbclient import NotebookClient

    notebook = read_notebook()
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, coalesce_streams=True, resources=place).execute(env=environment)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for data in (each.data for each in cell.outputs if "image/png" in each.get("data", {})):
                data["image/png"] = in_few_colours(data["image/png"])
    return notebook


def main(parts: list[str]) -> None:
    """Renews the named parts; all where none is named."""
    others = {"notebook", "pictures"}
    if not parts or "pictures" in parts:
        for script in SCRIPTS:
            subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)
    if not parts or set(parts) - others:
        samples([part for part in parts if part not in others])
    if not parts or "notebook" in parts:
        import nbformat

        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run_notebook(folder), TOUR)


if __name__ == "__main__":
    main(sys.argv[1:])
