"""Lets torchvision's usual wheel, built for CUDA, be imported beside a CPU build of torch.

There its compiled operators do not load, and importing it fails where it describes two of them. Its classifiers need
none; so both are declared here, without an implementation.
"""

import importlib.metadata
import sys

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Only beside such a pair: torchvision that finds its own operators declared already ends the process."""
    try:
        theirs = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return
    if sys.platform != "linux" or torch.version.cuda is not None or theirs.endswith("+cpu"):
        return
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
