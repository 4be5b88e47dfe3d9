"""Lets torchvision's wheel load beside a CPU build of torch, in every process of a virtual environment.

``make serving`` copies this file into the environment's site-packages, with a .pth file that imports it: vLLM starts
processes of its own, so a conftest is not enough. The two operators are declared when torchvision is first imported;
nothing here ever calls them.
"""

import sys
from importlib.abc import MetaPathFinder


class _Declare(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.modules[__name__].declared = self  # as long as the process lives


sys.meta_path.insert(0, _Declare())
