"""Whoever imports this can import torchvision: its wheels miss two operators beside a CPU build of torch.

Processes that tests start import it too. transformers never calls the two operators.
"""

import torch

try:
    import torchvision  # noqa: F401
except ImportError:
    pass
except RuntimeError:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
