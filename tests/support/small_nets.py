"""A small network of known answers, and the files that it is saved as."""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bre.errors import InputError
from bre.inputs import Classifier, open_model

C, H, W, K = 3, 8, 8, 5
X = torch.rand(7, C, H, W, generator=torch.Generator().manual_seed(0))


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(C, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, K),
    )
    torch.nn.init.constant_(net[1].running_var, 0.5)  # type: ignore[arg-type]
    return net


def answer(net: nn.Module) -> torch.Tensor:
    """The network's logits for X in evaluation mode."""
    was = net.training
    with torch.no_grad():
        y: torch.Tensor = net.eval()(X)
    net.train(was)
    return y


def export(net: nn.Module, batch: str = "free", example: int = 2) -> torch.export.ExportedProgram:
    shapes = {"input": {0: torch.export.Dim("batch", min=1, max=64)}} if batch == "free" else None
    return torch.export.export(net, (torch.rand(example, C, H, W),), dynamic_shapes=shapes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch deprecates TorchScript, which bre still reads; its decompositions warn too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def script(net: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.script(net).save(str(path))  # type: ignore[no-untyped-call]
    return path


def refused(match: str) -> pytest.RaisesExc[InputError]:
    return pytest.raises(InputError, match=match)


def checked(model: Any, **options: Any) -> Classifier:
    classifier = open_model(model, **options)
    classifier.check((C, H, W), K)
    return classifier


def rewrite(source: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a .pt2 whose member `name` went through change(bytes); a new member when it had none."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        stem = old.namelist()[0].split("/")[0]
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename == f"{stem}/{name}" else data)
        if f"{stem}/{name}" not in old.namelist():
            new.writestr(f"{stem}/{name}", change(b""))
    return target


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import sys; sys.bre_was_run = True",)
