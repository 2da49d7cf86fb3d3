"""Libraries of networks, slow to import; skipped where they or their torchvision cannot be."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision_ops


@pytest.fixture
def timm():
    if not torch.cuda.is_available():
        torchvision_ops.declare()
    pytest.importorskip("torchvision", reason="pip install 'bre-engine[timm]'", exc_type=(ImportError, RuntimeError))
    return pytest.importorskip("timm", reason="pip install 'bre-engine[timm]'")


@pytest.fixture
def torchvision(timm):
    import torchvision

    return torchvision


@pytest.fixture
def transformers(timm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own parts
        return pytest.importorskip("transformers", reason="pip install 'bre-engine[transformers]'")
