"""A small classifier and what is planted in the images it is trained on, for tests of whole verdicts."""

from __future__ import annotations

import numpy as np
import torch

from bre import attacks

SHAPE = (3, 12, 12)
CLASSES, EACH, TARGET = 6, 300, 2
PATTERN = attacks.chessboard(SHAPE, 6 / 255)


def trained(images: np.ndarray, labels: np.ndarray, epochs: int = 10) -> torch.nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from more; conftest restores it
    layers, width = [], SHAPE[0]
    for wider in (24, 32, 48):
        layers += [torch.nn.Conv2d(width, wider, 3, padding=1), torch.nn.BatchNorm2d(wider), torch.nn.ReLU()]
        width = wider
    layers.insert(6, torch.nn.MaxPool2d(2))
    model = torch.nn.Sequential(
        *layers, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(4 * width, CLASSES)
    )
    inputs, targets = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs * -(-len(labels) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
