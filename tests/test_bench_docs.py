"""docs/benchmarks.md is what the committed results say, and the scripts run what they promise."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs_commands import parse

from holitom.bench import load
from holitom.integrations.lmms_eval.settings import method_of
from holitom.report.bench import rows

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*/results.json"))


def generator():
    spec = importlib.util.spec_from_file_location("page", ROOT / "benchmarks" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes():
    assert (ROOT / "docs" / "benchmarks.md").read_text("utf-8") == generator().page()


def test_every_picture_is_there():
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    pictures = [part.partition(")")[0] for part in text.split("](")[1:] if part.partition(")")[0].endswith(".png")]
    assert pictures
    for picture in pictures:
        assert (ROOT / "docs" / picture).exists(), picture


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_committed_results_are_finished_and_derived_from_their_rounds(path):
    report = load(path)
    assert len(report.rounds) >= report.settings["repeats"]
    assert json.loads(path.read_text())["results"] == json.loads(json.dumps(report.results()))


def test_the_readmes_figures_of_the_gpu_are_those_of_its_runs():
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    gpu = ROOT / "benchmarks" / "results"
    tower = json.loads((gpu / "nvidia-h100-80gb-hbm3-tower" / "tower.json").read_text("utf-8"))["first token"]

    def times(static, method):
        rounds, first = tower[static]["rounds"], "time to first token"
        pairs = zip(rounds["uncompressed:stock=true"], rounds[method], strict=True)
        return statistics.median(stock[first] / own[first] for stock, own in pairs)

    whole, rowed = times("0", "holitom"), times("0.84", "renewal|holitom:retention=0.1")
    assert f"first token came {whole:.1f} times as early as stock transformers'" in readme
    assert f"and {rowed:.1f} times where a stage inside the tower computed a quarter of it" in readme
    assert 0.2 < tower["0.84"]["rows"]["renewal|holitom:retention=0.1"] < 0.3
    report = load(gpu / "nvidia-h100-80gb-hbm3-batch-8-later" / "results.json")
    assert (report.settings["frames"], report.settings["batch"]) == (32, 8)
    [found] = [row for row in rows(report) if row["method"] == "holitom"]
    steps = [statistics.median(report.compiled[name]["seconds"]) for name in ("uncompressed", "holitom")]
    assert f"a batch of eight the LLM's part took {found['prefill_speedup']:.0f} times less" in readme
    assert f"Compiled decoding of that batch was {steps[0] / steps[1]:.1f} times as fast" in readme
    assert f"eager decoding {found['decode_speedup']:.1f} times" in readme


def test_the_readmes_table_is_that_of_its_runs():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    cells = {
        name: figures for name, *figures in (re.split(r" *\| *", line.strip("| "))[:4] for line in lines if "|" in line)
    }
    results = ROOT / "benchmarks" / "results"
    found = {row["method"]: row for row in rows(load(results / "nvidia-h100-80gb-hbm3-batch-1-later" / "results.json"))}
    measured = [found[name] for name in ("uncompressed", "holitom", "spread")]
    first = [f"{row['time to first token']:.1f}" for row in measured]
    assert cells["first token, vision tower included, ms"] == first
    assert cells["of it the LLM's prefill, ms"] == [f"{row['LLM prefill']:.1f}" for row in measured]
    assert cells["KV cache, MB"] == [f"{row['kv_cache_bytes'] / 1e6:.1f}" for row in measured]
    testbed = (ROOT / "docs" / "testbed.md").read_text("utf-8")
    shown = [
        re.search(rf"^\| `{name}` \| ([\d.]+) \[", testbed, re.MULTILINE)[1] for name in ("uncompressed", "spread")
    ]
    published = re.search(r"^\| `holitom` \| ([\d.]+) \[", testbed, re.MULTILINE)[1]
    assert cells["accuracy on the [testbed](docs/testbed.md), %"] == [shown[0], published, shown[1]]


def test_the_gpu_scripts_commands_are_understood(tmp_path):
    """Those of the command line, as they would run on a GPU, without running any."""
    stand_in = tmp_path / "show.py"
    stand_in.write_text("import shlex, sys\nprint(shlex.join(sys.argv[1:]))\n")
    stand_in_command = f"{shlex.quote(sys.executable)} {shlex.quote(str(stand_in))}"
    env = {**os.environ, "HOLITOM": stand_in_command, "OUT": str(tmp_path / "out")}
    script = [str(ROOT / "scripts" / "gpu_benchmark.sh"), "batch-1", "batch-8", "frames", "profile"]
    shown = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(shown) == 4
    for line in shown:
        parse(shlex.split(line))


def test_the_gpu_scripts_limits_add_up_to_seven_minutes_at_most_and_two_for_each():
    text = (ROOT / "scripts" / "gpu_benchmark.sh").read_text("utf-8")
    limits = [int(seconds) for seconds in re.findall(r"^ +(?:\S+\) )?(?:step|bench|batch) (\d+)", text, re.MULTILINE)]
    assert len(limits) == 7
    assert max(limits) <= 120
    assert sum(limits) <= 420


def test_a_decode_steps_operations_are_counted_and_set_beside_its_bytes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["decode_step.py", "--preset", "tiny", "--out", str(tmp_path / "found.json")])
    runpy.run_path(str(ROOT / "benchmarks" / "decode_step.py"), run_name="__main__")
    found = json.loads((tmp_path / "found.json").read_text())
    for kind, count in found["operations"]["uncompressed"].items():
        assert 50 < found["operations"]["compressed"][kind] <= count + 8
    whole, tenth = found["rows"][:2]
    assert whole["kv"] == 6313 * 4 * 2 * 24 * 2  # tokens, layers, keys and values, two heads of 12, bytes
    assert whole["compiled model"] > tenth["compiled model"] > found["weights"] / found["bandwidth"] / 1e12
    assert found["masked"] == 1 + 2 * 2


@pytest.mark.slow
def test_the_gpu_script_runs_dry(tmp_path):
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(_main(tmp_path)))}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "HOLITOM": command, "OUT": str(tmp_path / "out"), "PYTHONPATH": str(ROOT), "PATH": path}
    script = [str(ROOT / "scripts" / "gpu_benchmark.sh"), "--dry-run"]
    done = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for batch in (1, 8):
        report = load(tmp_path / f"out-batch-{batch}" / "results.json")
        assert report.settings["batch"] == batch
        assert len(report.rounds) >= report.settings["repeats"]
        assert not report.failures
        assert len(report.compiled) == len(report.results()) == 3
    profiled = json.loads((tmp_path / "out-profile" / "profile.json").read_text())
    assert profiled["holitom"]["gaps"][0]["seconds"] <= profiled["holitom"]["idle"] < profiled["holitom"]["span"]
    assert json.loads((tmp_path / "out-frames" / "sweep.json").read_text())["ends"]["holitom"]["frames"] == 16
    assert len(json.loads((tmp_path / "out-methods" / "methods.json").read_text())["methods"]) > 10
    tower = json.loads((tmp_path / "out-tower" / "tower.json").read_text())
    assert tower["parts"]["pooling, here"] > 0
    assert tower["first token"]["0.84"]["rows"]["renewal|holitom:retention=0.1"] < 0.8


def test_the_papers_rows_are_methods_that_exist():
    script = [str(ROOT / "scripts" / "paper_table.sh"), "--print"]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line)
        given = dict(part.split("=", 1) for part in words[words.index("--model_args") + 1].split(","))
        settings = {
            key: value for key, value in given.items() if key not in ("pretrained", "frames", "dtype", "method")
        }
        assert method_of(given["method"], settings).token_count is not None
        assert "mvbench,egoschema_subset,videomme,longvideobench_val_v" in words


def _main(folder: Path) -> Path:
    """The console script, in this interpreter, with what torchvision_loads.py does."""
    path = folder / "main.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nimport torchvision_loads\n"
        "from holitom.cli import main\nmain()\n"
    )
    return path
