"""What methods do on an accelerator, as far as that can be known without one.

Tensors on the device ``meta`` have no values: whatever would make an accelerator wait for its result, to look at it,
raises there, and so does most mixing with tensors that were left on the CPU.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import holitom
from holitom.methods import parse
from holitom.ops.diversity import _farthest_eager, farthest_rows, most_isolated
from holitom.ops.similarity import row_norms
from holitom.tokens import SpanStates, VideoTokens

NEVER_WAIT = (
    "evs",
    "evs:retention=0.05,exact=true",
    "visionzip",
    "visionzip:compare=features",
    "dycoke",
    "dycoke:retention=0.1,exact=true",
    "vidcom2:exact=true",
    "vidcom2:pruning_rate=0.8",
    "divprune",
    "cdpruner",
    "echoprune",
    "uniformframes",
    "uniformframes:exact=true",
    "randomdrop",
    "averagepool",
    "averagepool:exact=true",
)


@pytest.mark.parametrize("text", NEVER_WAIT)
def test_methods_with_known_counts_never_wait_for_the_device(text: str) -> None:
    video = VideoTokens(
        torch.empty(8, 36, 16, device="meta", dtype=torch.bfloat16),
        (6, 6),
        scores=torch.empty(8, 36, device="meta"),
        keys=torch.empty(8, 36, 5, device="meta"),
        question=torch.empty(4, 16, device="meta", dtype=torch.bfloat16),
    )
    method = parse(text)
    merge = method.merge_video(video)
    assert merge.outputs == method.token_count(8, (6, 6))
    assert {merge.target.device.type, merge.weight.device.type, merge.anchor.device.type} == {"meta"}
    assert merge.apply(video.features.flatten(0, 1)).shape == (merge.outputs, 16)


@pytest.mark.parametrize(
    "text", ["fastv", "pyramiddrop", "flashvid", "holitom", "randominner", "randominner:merge=true"]
)
def test_inner_stages_never_wait_for_the_device(text: str) -> None:
    method = parse(text)
    hidden, attention = torch.empty(60, 16, device="meta"), torch.empty(60, device="meta")
    span = SpanStates(hidden, attention, method.layers(28)[0], 28, torch.arange(60), 8, (6, 6), 60)
    assert method.merge_span(span).anchor.device.type == "meta"


def test_picking_without_waiting_picks_the_same() -> None:
    rows = torch.randn(600, 24, generator=torch.Generator().manual_seed(0))
    norms = row_norms(rows)
    first = most_isolated(rows, norms)
    assert torch.equal(_farthest_eager(rows, norms, first, 80), farthest_rows(rows, 80))


def test_picking_never_holds_all_similarities_yet_finds_the_most_isolated() -> None:
    rows = torch.randn(1300, 24, generator=torch.Generator().manual_seed(1))  # more than one block
    unit = torch.nn.functional.normalize(rows, dim=-1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    assert int(most_isolated(rows)) == int(cosine.amax(0).argmin())


ON_THE_HOST = {"_plan.py", "diversity.py"}  # numpy arrays, and a loop that only a CPU runs


def test_no_number_is_assigned_at_tensor_indexes() -> None:
    """``x[index] = 1`` copies the 1 to a GPU and waits for it; ``index_fill_`` does not."""
    package = Path(holitom.__file__).parent
    for path in [
        package / "merge.py",
        *(p for room in ("ops", "methods", "runtime") for p in (package / room).glob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Assign) or path.name in ON_THE_HOST:
                continue
            number = ast.unparse(node.value).removeprefix("-") in ("torch.inf", "True", "False") or isinstance(
                node.value, ast.Constant
            )
            for target in node.targets:
                by_tensor = isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Name | ast.Attribute)
                assert not (number and by_tensor), f"{path.name}:{node.lineno}: {ast.unparse(node)}"
