"""Real models to be fuzzed, as the libraries save them that people use."""

from __future__ import annotations

import argparse
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision_ops
from mutations import Bee

from bre.inputs import open_model

H, W, K = 8, 8, 3


def small_net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(72, K))


def read_model(path: Path) -> None:
    classifier = open_model(path)
    classifier.check((3, H, W), K)


def read_weights(path: Path) -> None:
    open_model(path, arch=small_net).check((3, H, W), K)


def fill_models(real: Callable[[str], Any]) -> None:
    net = small_net().eval()
    x = torch.rand(2, 3, H, W)
    for shapes in (None, {"input": {0: torch.export.Dim("batch", min=1, max=64)}}):
        with real("pt2") as path:
            torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), path / "net.pt2")
    fill_torchscript(real, net)
    state = net.state_dict()
    plain = {"args": argparse.Namespace(out=Path("x"), lr=0.1), "best": np.float64(0.5), "seen": np.arange(3)}
    lightning = {"state_dict": {**{f"model.{k}": v for k, v in state.items()}, "loss.w": torch.ones(2)}, "loops": {}}
    for new in (True, False):
        for content in (state, {"net": state, **plain}, lightning, {"state_dict": state, "x": Bee()}, net):
            with real("checkpoint") as path:
                torch.save(content, path / "net.pth", _use_new_zipfile_serialization=new)
    with real("safetensors") as path:
        import safetensors.torch

        safetensors.torch.save_file(state, path / "net.safetensors", {"format": "pt"})


def fill_torchscript(real: Callable[[str], Any], net: torch.nn.Module) -> None:
    with real("torchscript") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(str(path / "net.pt"))  # type: ignore[no-untyped-call]
    with real("torchscript") as path:
        torch.save(net, path / "net.pt")


def fill_traced(real: Callable[[str], Any]) -> None:
    with real("traced") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(small_net().eval(), torch.rand(2, 3, H, W)).save(str(path / "net.pt"))  # type: ignore[no-untyped-call]


def fill_folders(real: Callable[[str], Any]) -> None:
    """Raises ImportError where transformers is not installed."""
    if not torch.cuda.is_available():
        torchvision_ops.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(0)
        options = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic", "num_labels": K}
        config = transformers.ResNetConfig(**options)
        processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 12, "width": 12}}
        with real("model folder") as path:
            transformers.ResNetForImageClassification(config).save_pretrained(path / "net")
            (path / "net" / "preprocessor_config.json").write_text(json.dumps(processor))
