"""HoliTom equals the official code's outputs, which tests/data/golden/holitom/index.json describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden import span
from safetensors.torch import load_file

from holitom import HoliTom, VideoTokens
from holitom.models import with_row_newlines
from holitom.ops import DensityPeaks, segment

GOLDEN = Path(__file__).parent / "data" / "golden" / "holitom"
INDEX = json.loads((GOLDEN / "index.json").read_text())
INPUTS = {case["key"]: case for case in INDEX["outer_inputs"]}


@pytest.fixture(scope="module")
def tensors():
    return {name: load_file(GOLDEN / f"{name}.safetensors") for name in ("segmentation", "outer", "dpc", "inner")}


def method_of(case):
    """The settings of a case of the stage before the LLM."""
    return HoliTom(
        retention=case["retain_ratio"],
        similarity=case["tau"],
        centre_weight=case["beta"] if case["merge_mode"] == "beta" else None,
        neighbours=case["K"],
        max_frames=case["max_window"],
    )


def by_key(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["key"])


@by_key(INDEX["segmentation"])
def test_segmentation(tensors, case):
    similarity = tensors["segmentation"][f"{case['key']}.feature_sim"].float()
    found = segment(similarity > torch.tensor(case["tau"]), case["max_window"])
    assert [list(span) for span in found.spans] == tensors["segmentation"][f"{case['key']}.segments"].tolist()
    assert found.redundant == int(case["total_reduced"])


@by_key(INDEX["outer"])
def test_outer_stage(tensors, case):
    key, grid = case["input"], INPUTS[case["input"]]["grid"]
    inputs = {name: tensors["outer"][f"{key}.{name}"].float() for name in ("features", "attention", "newline")}
    method = method_of(case)
    video = VideoTokens(inputs["features"], (grid, grid), inputs["attention"])
    merge = method.merge_video(video).validate()
    cut = method.segment(video)
    assert [list(span) for span in cut.spans] == case["segments"]
    assert cut.redundant == case["total_reduced"]
    tokens = torch.cat([merge.apply(inputs["features"].flatten(0, 1)), inputs["newline"][None]])
    order = torch.cat([torch.arange(merge.outputs), torch.tensor([-1])])
    if case["newline_mode"] == "grid":
        order = with_row_newlines(merge, (grid, grid))
    assert len(order) == case["n_tokens"]
    torch.testing.assert_close(tokens[order], tensors["outer"][f"{case['key']}.tokens"], atol=1e-4, rtol=0)


@by_key(INDEX["dpc"])
def test_density_peaks(tensors, case):
    rows = tensors["dpc"][f"{case['key']}.x"].float()
    centres = DensityPeaks.of(rows, case["cluster_num"], min(case["K"], case["cluster_num"])).centres
    assert torch.equal(centres, tensors["dpc"][f"{case['key']}.centres"])


@by_key(INDEX["inner"])
def test_inner_stage(tensors, case):
    hidden, attention = (tensors["inner"][f"{case['key']}.{name}"][0].float() for name in ("hidden", "attn_last"))
    start, stop = case["start"], case["start"] + case["length"]
    merge = HoliTom(inner_retention=1 - case["r"]).merge_span(span(hidden[start:stop], attention.mean(0)[start:stop]))
    keep = torch.cat([torch.arange(start), merge.anchor + start, torch.arange(stop, case["seq_len"])])
    assert torch.equal(keep, tensors["inner"][f"{case['key']}.keep"])
    merged = torch.cat([hidden[:start], merge.validate().apply(hidden[start:stop]), hidden[stop:]])
    torch.testing.assert_close(merged, tensors["inner"][f"{case['key']}.merged"][0], atol=1e-4, rtol=0)
