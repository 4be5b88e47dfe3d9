"""The recipe of the bundled tiny model; not part of the installed package."""

import torch

try:
    import torchvision  # noqa: F401
except ImportError:
    pass
except RuntimeError:
    # torchvision wheels beside another build of torch miss their compiled operators, and transformers imports
    # torchvision for its image helpers. None of the two operators is used here: declaring them is enough.
    _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
