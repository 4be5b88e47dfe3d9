"""Servers with different methods share a store on disk: each answers as it would alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import answers, assert_same, engine, prompt, said
from serving_checkpoints import build_checkpoint

from holitom.integrations.vllm import ServingConfig

NAME = "qwen2_5_vl"
METHODS = {
    "holitom": ServingConfig.of("holitom", retention=0.5),
    "another method": ServingConfig.of("uniformframes", retention=0.5),  # as many tokens
    "fewer tokens": ServingConfig.of("holitom", retention=0.25),
}
CONNECTORS = {
    "kv": ("kv_transfer_config", "kv_connector", "ExampleConnector", "kv_role", "kv_both"),
    "ec": ("ec_transfer_config", "ec_connector", "ECExampleConnector", "ec_role", "ec_both"),
}
ASKED = prompt(NAME, ("video", 24, 1), " what is it, and why?")
NAMED = {**ASKED, "multi_modal_uuids": {"video": ["a clip that a client has named"]}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(NAME, tmp_path_factory.mktemp(NAME))


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> dict[str, Any]:
    """What each server says without a store."""
    said_alone = {}
    for label, config in METHODS.items():
        with engine(checkpoint, NAME, config, block_size=32) as llm:
            said_alone[label] = answers(llm, ASKED)[0]
    return said_alone


def sharing(kind: str, store: Path) -> dict[str, Any]:
    argument, connector, name, role, both = CONNECTORS[kind]
    extra = f"{connector}_extra_config"
    return {argument: {connector: name, role: both, extra: {"shared_storage_path": str(store)}}}


def test_the_methods_answer_differently(alone: dict):
    one, other = (said(alone[label])[1] for label in ("holitom", "another method"))
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 1e-3


@pytest.mark.parametrize("named", [False, True], ids=["by pixels", "by uuid"])
@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_shared_store_mixes_nothing(kind: str, named: bool, checkpoint: Path, alone: dict, tmp_path: Path):
    asked = NAMED if named else ASKED
    for label in [*METHODS, "holitom"]:  # the first one comes back and finds what it wrote
        before = files(tmp_path)
        with engine(checkpoint, NAME, METHODS[label], block_size=32, **sharing(kind, tmp_path)) as llm:
            assert_same(answers(llm, asked)[0], alone[label], 1e-5)
        after = files(tmp_path)
        assert (after == before) == (label == "holitom" and before > 0)


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
