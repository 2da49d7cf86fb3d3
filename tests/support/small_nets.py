"""A small network of known answers, and the files that it is saved as."""

from __future__ import annotations

import contextlib
import warnings
import zipfile

import pytest
import torch
from torch import nn

from bre.errors import InputError
from bre.inputs import open_model

C, H, W, K = 3, 8, 8, 5
X = torch.rand(7, C, H, W, generator=torch.Generator().manual_seed(0))


def make_net():
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
    net[1].running_var.fill_(0.5)
    return net


def answer(net):
    """The network's logits for X in evaluation mode."""
    net = make_net() if net is None else net
    was = net.training
    with torch.no_grad():
        y = net.eval()(X)
    net.train(was)
    return y


def export(net, batch="free", example=2):
    shapes = {"input": {0: torch.export.Dim("batch", min=1, max=64)}} if batch == "free" else None
    return torch.export.export(net, (torch.rand(example, C, H, W),), dynamic_shapes=shapes)


@contextlib.contextmanager
def quiet():
    """Torch deprecates TorchScript, which bre still reads; its decompositions warn too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def script(net, path):
    with quiet():
        torch.jit.script(net).save(str(path))
    return path


def refused(match):
    return pytest.raises(InputError, match=match)


def checked(model, **options):
    classifier = open_model(model, **options)
    classifier.check((C, H, W), K)
    return classifier


def rewrite(source, target, name, change):
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
    def __reduce__(self):
        return exec, ("import sys; sys.bre_was_run = True",)
