"""Lets torchvision's usual wheel, built for CUDA, be imported beside a CPU build of torch.

There its compiled operators do not load, and importing it fails where it describes two of them. Its classifiers need
none; so both are declared here, without an implementation.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
