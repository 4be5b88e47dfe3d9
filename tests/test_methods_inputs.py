"""What methods do with settings and tensors that are not as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_zoo import OUTER
from test_methods_inner import INNER

from holitom import HoliTom
from holitom.methods import EVS, FastV, FrameFusion, Method, PyramidDrop, VisionZip
from holitom.methods.settings import kinds_of

METHODS = [*(cls() for cls in OUTER), *INNER]
WRONG: dict[Any, tuple[Any, ...]] = {
    int: ("7", 1.5, True, None),
    float: ("0.5", True, None),
    bool: ("no", 1, 0),
    float | None: ("0.5", False),
    int | None: (2.0, True),
}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_setting_of_the_wrong_type_names_itself(method: Method) -> None:
    for key, kind in kinds_of(type(method)).items():
        for value in WRONG.get(kind, (object(),)):
            with pytest.raises(TypeError, match=f"{type(method).__name__}'s {key} must be .*got "):
                type(method)(**{key: value})


def test_numbers_of_numpy_are_numbers() -> None:
    method = HoliTom(retention=np.float32(0.25), neighbours=np.int64(5), layer=np.int32(3), exact=np.True_)
    assert method == HoliTom(retention=0.25, neighbours=5, layer=3, exact=True)
    assert [type(getattr(method, name)) for name in ("retention", "neighbours", "layer", "exact")] == [
        float,
        int,
        int,
        bool,
    ]
    assert PyramidDrop([8, np.int64(16)], [np.float64(0.5), 0.25]) == PyramidDrop((8, 16), (0.5, 0.25))
    with pytest.raises(TypeError, match="first must be an integer, got "):
        FrameFusion(first=np.float64(2))


@pytest.mark.parametrize("cls", [HoliTom, FastV, VisionZip])
def test_a_forgotten_second_call_says_so(cls: Any) -> None:
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(\)\(model\)"):
        cls(torch.nn.Linear(2, 2))


def test_exact_needs_a_retention_that_is_in_range() -> None:
    for wrong in (0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"retention .* \(0, 1\]"):
            EVS(retention=wrong)
