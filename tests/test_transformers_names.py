"""Each private or changing name that the package uses of transformers is there, in the release that is installed."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import holitom
from holitom.models.transformers_names import CACHE_NAMES, NAMES, cache_argument


@pytest.mark.parametrize("path", NAMES)
def test_the_name_is_there(path):
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["transformers", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            assert hasattr(found, name), f"transformers.{path} is gone. It is used because: {NAMES[path]}"
            found = getattr(found, name)
        return
    pytest.fail(f"transformers.{path} is gone. It is used because: {NAMES[path]}")


def test_masks_take_the_layer():
    from transformers.masking_utils import create_causal_mask

    assert cache_argument(create_causal_mask) in CACHE_NAMES
    assert "layer_idx" in inspect.signature(create_causal_mask).parameters


def test_what_is_imported_from_inside_transformers_is_listed():
    """Of its submodules, that is; what ``transformers`` itself exports is public."""
    for module in ("models", "runtime"):
        for path in (Path(holitom.__file__).parent / module).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers."):
                    for name in node.names:
                        assert f"{node.module}.{name.name}".removeprefix("transformers.") in NAMES, path
