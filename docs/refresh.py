"""Renews what the pages show of real runs: output below each `<!-- sample: ... -->` of the README, and all pictures.

    python docs/refresh.py

Run it after a change of the bundled model or of what the commands print. Times in the output are those of
this machine; the measured run of the README alone takes two minutes of processor time.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SAMPLE = re.compile(r"(<!-- sample: holitom (?P<command>.*?) -->\n```text\n)(?P<output>.*?)(```)", re.DOTALL)


def holitom(command: str, folder: str) -> str:
    """Runs the command line in a folder and returns what it printed."""
    call = [sys.executable, "-c", "from holitom.cli import main; main()", *shlex.split(command)]
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def main() -> None:
    """Rewrites the README and the pictures in place."""
    with tempfile.TemporaryDirectory() as folder:
        holitom("clips make --number 1 --out .", folder)
        text = README.read_text("utf-8")
        text = SAMPLE.sub(lambda match: match[1] + holitom(match["command"], folder) + match[4], text)
        README.write_text(text, "utf-8")
    for script in ("method_catalogue.py", "figures.py", "step_figures.py", "method_figures.py"):
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


if __name__ == "__main__":
    main()
