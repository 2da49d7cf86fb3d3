"""Weights of a small network, saved in many ways, and whether what is opened is that network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from bre.inputs import Classifier

C, H, W, K = 3, 8, 8, 5
X = torch.rand(3, C, H, W, generator=torch.Generator().manual_seed(0))


def make_net(num_classes: int = K) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(C, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))


def weights(net: nn.Module, path: Path) -> Path:
    safetensors.torch.save_file(net.state_dict(), path)
    return path


def agrees(classifier: Classifier, net: Any, x: torch.Tensor = X, shape: tuple[int, int, int] = (C, H, W)) -> bool:
    """Whether the classifier is net on normalised x."""
    classifier.check(shape, K)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (classifier.mean, classifier.std))
    with classifier, torch.no_grad():
        expected = net.eval()((x - mean) / std)
        torch.testing.assert_close(classifier.logits((x - mean) / std), getattr(expected, "logits", expected))
    return True
