"""``holitom bench`` as a user types it, the sweep over frames, and the profile."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_checkpoints import build_llava_onevision

from holitom import HoliTom
from holitom.bench import bench, build, fresh_report, from_preset, load
from holitom.bench import sweep as sweeping
from holitom.bench.profile import profile
from holitom.bench.sweep import exponent, sweep
from holitom.cli import main
from holitom.cli.bench import PRESET_NAMES
from holitom.methods.baselines import Uncompressed
from holitom.report.bench import bench_plots, rows

TINY = ("--preset", "tiny", "--dtype", "float32", "--device", "cpu", "--answer-tokens", "3")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command and gives its exit code, output and messages."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["holitom", "bench", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = capsys.readouterr()
        return exit_.value.code or 0, shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def model():
    return build("tiny", dtype=torch.float32)


# the command ---------------------------------------------------------------------------------------------------------


def test_everything_is_written_and_a_second_call_adds_rounds(run, tmp_path):
    words = (*TINY, "--frames", 8, "--method", "holitom", "--method", "fastv", "--retention", 0.25, "--out", tmp_path)
    code, out, _ = run(*words, "--repeats", 2)
    assert code == 0
    assert "holitom:retention=0.25" in out.replace("\n", "")
    assert "of 2 interleaved rounds" in out
    assert max(map(len, out.splitlines())) <= 80
    first = load(tmp_path / "results.json")
    assert first.settings["methods"] == ["uncompressed", "holitom:retention=0.25", "fastv"]
    assert "Gaussian noise" in first.notes[0]
    for name in ("time_to_first_token.png", "decode_throughput.png"):
        assert (tmp_path / name).stat().st_size > 5000
    code, out, _ = run(*words, "--repeats", 3, "--json")
    assert code == 0
    again = load(tmp_path / "results.json")
    assert json.loads(out) == again.as_dict()
    assert again.rounds[:2] == first.rounds
    assert len(again.rounds) == 3
    code, _, err = run(*words, "--batch-size", 2)
    assert code == 1
    assert "batch was 1 and is now 2" in err.replace("\n", " ")


def test_a_checkpoint_by_path(run, tmp_path):
    folder = build_llava_onevision(tmp_path / "model")
    words = ("--dtype", "float32", "--device", "cpu", "--answer-tokens", 2, "--frames", 4, "--repeats", 1, "--json")
    code, out, _ = run(folder, *words)
    assert code == 0
    report = json.loads(out)
    assert report["settings"]["weights"] == "loaded"
    assert report["methods"]["uncompressed"]["visual_tokens"]["entering"] == 4 * 16 + 1


def test_failures_are_shown_and_the_rest_stays(run):
    code, out, _ = run(*TINY, "--frames", 8, "--method", "dycoke", "--method", "holitom", "--repeats", 1)
    assert code == 0
    assert "[failed] dycoke:retention=0.1" in out
    assert "2  holitom" in out


def test_accuracy_over_flops_is_drawn_from_an_evaluation(run, tmp_path):
    entry = {"mean": [0.5, 0.4, 0.6], "prefill_flops": 0.1}
    content = {
        "clips": 2,
        "model": "tiny",
        "methods": {"uncompressed": {**entry, "prefill_flops": 1.0}, "fastv": entry},
    }
    (tmp_path / "accuracy.json").write_text(json.dumps(content))
    words = (*TINY, "--frames", 4, "--repeats", 1, "--out", tmp_path / "out", "--accuracy")
    assert run(*words, tmp_path / "accuracy.json")[0] == 0
    assert (tmp_path / "out" / "accuracy_over_flops.png").stat().st_size > 5000
    (tmp_path / "accuracy.json").write_text("{}")
    code, _, err = run(*words, tmp_path / "accuracy.json")
    assert code == 1
    assert "no accuracy.json of `holitom eval`" in err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either the path or id of a model, or --preset"),
        (("somewhere", "--preset", "tiny"), "give either the path or id of a model, or --preset"),
        (("--preset", "llava"), "there is no preset 'llava'; there are llava-onevision-0.5b"),
        (("--preset", "tiny", "--dtype", "int8"), "'int8' is no floating type"),
        (("--preset", "tiny", "--clock", "sun"), "'sun' is none of wall, process"),
        (("--preset", "tiny", "--profile"), "a profile is made of files: give --out"),
        (("--preset", "tiny", "--compile", "nothing"), "'nothing' is none of torch's backends"),
        (("--preset", "tiny", "--method", "holitum"), "there is no method 'holitum': did you mean holitom"),
    ],
)
def test_wrong_usage_is_named(run, words, message):
    code, _, err = run(*words)
    assert code == 2
    assert message in " ".join(err.split())


def test_the_help_names_every_preset():
    from holitom.bench import PRESETS

    assert PRESET_NAMES.split(", ") == list(PRESETS)


def test_a_report_without_an_answer_has_no_decode_plot(model, tmp_path):
    methods = [Uncompressed(), HoliTom()]
    workload = from_preset("tiny", model, frames=4, answer=1)
    settings = {"repeats": 1, "warmup": 0, "batch": 1, "frames": 4, "dtype": "float32", "attention": "sdpa"}
    report = bench(workload, methods, fresh_report(workload, settings, methods))
    assert [path.name for path in bench_plots(report, tmp_path)] == ["time_to_first_token.png"]
    assert [row["tokens_per_second"] for row in rows(report)] == [None, None]


# the sweep -----------------------------------------------------------------------------------------------------------


def test_exponents_are_slopes():
    frames = [8, 16, 32, 64]
    assert exponent(frames, [0.01 * n**1.5 for n in frames]) == pytest.approx(1.5)
    assert exponent([8, 16], [1, 2]) is None
    assert exponent([8, 16, 32], [1, 0, 2]) is None


def test_a_sweep_closes_in_on_where_memory_ends(model, monkeypatch):
    real = sweeping.measure

    def tight(workload, method, encoded=None):
        found = real(workload, method, encoded)
        if found.summary.cost.compressed.prompt_tokens > 250:  # of 17 per frame about
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    monkeypatch.setattr(sweeping, "measure", tight)
    seen = []
    make = lambda frames: from_preset("tiny", model, frames, answer=2)  # noqa: E731
    found = sweep(make, [Uncompressed(), HoliTom(retention=0.25)], start=4, save=seen.append)
    full, short = found["ends"]["uncompressed"], found["ends"]["holitom:retention=0.25"]
    assert full["frames"] <= (250 - 40) // 16 < full["failed"] <= full["frames"] + max(1, full["frames"] // 8)
    assert short["frames"] > 2 * full["frames"]
    assert full["why"] == "OutOfMemoryError: CUDA out of memory."
    assert set(found["exponents"]["holitom:retention=0.25"]) >= {"LLM prefill", "vision tower", "compression"}
    assert seen[-1] == found


def test_a_sweep_stops_at_its_limit_and_before_the_system_ends_the_process(run, model, monkeypatch, tmp_path):
    code, out, _ = run(*TINY, "--max-frames", "--frames", 2, "--frame-limit", 7, "--repeats", 1, "--out", tmp_path)
    assert code == 0
    assert "uncompressed" in out
    saved = json.loads((tmp_path / "sweep.json").read_text())
    assert [p["frames"] for p in saved["points"] if p["label"] == "holitom"] == [2, 4, 7]
    assert saved["ends"]["holitom"] == {"frames": 7, "failed": None, "why": None}
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    monkeypatch.setattr(sweeping, "free_memory", lambda device: 1)
    real = sweeping.measure

    def heavy(*arguments):
        found = real(*arguments)
        object.__setattr__(found, "peak_above", 10**9)
        return found

    monkeypatch.setattr(sweeping, "measure", heavy)
    found = sweep(lambda frames: from_preset("tiny", model, frames, answer=2), [Uncompressed()], start=2)
    assert "would take about" in found["ends"]["uncompressed"]["why"]
    assert found["ends"]["uncompressed"]["frames"] >= 2


# the profile ---------------------------------------------------------------------------------------------------------


def test_a_profile_marks_the_stages(model, tmp_path):
    found = profile(from_preset("tiny", model, frames=8, answer=3), HoliTom(), tmp_path)
    stages = found["stages"]
    assert stages["LLM"]["calls"] == 3  # the prompt, and two more tokens
    assert stages["vision tower"]["calls"] == 1
    assert stages["compression"]["calls"] == 2  # before the LLM and inside it
    assert all(entry["host"] > 0 for entry in stages.values())
    assert any("mm" in operation["name"] for operation in found["operations"])
    events = json.loads((tmp_path / found["trace"]).read_text())["traceEvents"]
    assert {"vision tower", "compression", "LLM"} <= {event.get("name") for event in events}
    assert "aten::" in (tmp_path / "operations-holitom.txt").read_text()
