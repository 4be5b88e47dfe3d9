"""Shared by all tests."""

import torch
from hypothesis import settings


def _let_torchvision_load() -> None:
    """Wheels of torchvision beside a CPU build of torch miss two operators that transformers never calls."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        global _library
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_let_torchvision_load()
torch.set_num_threads(1)  # the tests are many small products; threads only get in each other's way
settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing there
settings.load_profile("shared machine")
