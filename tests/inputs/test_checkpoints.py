"""Checkpoints as training scripts leave them: what is found in them, and what is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from real_files import refused
from small_weights import C, H, K, W, agrees, make_net, weights
from torch import nn

from bre.inputs import open_model


def test_safetensors_into_a_callable(tmp_path):
    path = weights(net := make_net(), tmp_path / "net.safetensors")
    classifier = open_model(path, arch=make_net)
    assert agrees(classifier, net)
    assert classifier.mean == (0.0,) * C
    assert classifier.source == "net.safetensors (make_net)"


def under(prefix, state):
    return {prefix + k: v for k, v in state.items()}


def moved(state):
    """Another network's."""
    return {k: v + 1 for k, v in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"net": state, "acc": 93.1, "epoch": 10},
        lambda state: {"network": {"weights": state}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, out=Path("runs"))},
        lambda state: {"state_dict": under("module.", state)},
        lambda state: under("_orig_mod.", state),
        lambda state: under("_orig_mod.module.", state),
        lambda state: under("module._orig_mod.", state),
        lambda state: {"net": under("timm_model.", state)},
        lambda state: under("encoder.backbone.", state),
        lambda state: {k.replace("0.", "0._orig_mod.").replace("4.", "4.module."): v for k, v in state.items()},
        lambda state: {"n_averaged": torch.tensor(7), **under("module.", state)},  # torch's AveragedModel
        lambda state: {**state, "criterion.centers": torch.zeros(3)},
        lambda state: {"net": state, "log": collections.defaultdict(list, a=[1]), "last": collections.deque([1, 2])},
        lambda state: {"ema": {"module": state, "decay": 0.99}},
        lambda state: {"state_dict_ema": state},
        lambda state: {"epoch": 1, "loops": {}, "state_dict": {**under("model.", state), "loss.weight": torch.ones(3)}},
        lambda state: {"model": state, "model_ema": moved(state)},
        lambda state: {**under("teacher.", moved(state)), **under("student.", state)},
        lambda state: {"model": state, "again": {"model": state}},
        lambda state: {"state_dict": state, "acc": np.float64(0.9), "best": np.float32(1), "history": np.arange(3)},
        lambda state: {"model": state, "when": datetime.datetime(2024, 5, 1), "seen": collections.defaultdict(list)},
        lambda state: {"model": state, "where": pathlib.PureWindowsPath("a/b"), "kind": np.dtype("f4")},
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_of_weights(tmp_path, wrap, new):
    net = make_net()
    torch.save(wrap(net.state_dict()), tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    assert agrees(open_model(tmp_path / "net.pth", arch=make_net), net)


class Attack:
    def __reduce__(self):
        return exec, ("import sys; sys.bre_was_run = True",)


@pytest.mark.parametrize("new", [True, False])
def test_a_checkpoint_with_code_is_refused(tmp_path, new):
    content = {"state_dict": make_net().state_dict(), "x": Attack()}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    with refused("more than weights.*exec.*|more than weights"):
        open_model(tmp_path / "net.pth", arch=make_net)
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(Attack()))
    with refused("more than weights|no checkpoint"):
        open_model(tmp_path / "net.pkl", arch=make_net)
    assert not hasattr(sys, "bre_was_run")


def test_a_whole_pickled_network_needs_unsafe(tmp_path):
    torch.save(net := nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)), tmp_path / "net.pth")

    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K))

    with refused("more than weights.*save only the state dict.*argument unsafe"):
        open_model(tmp_path / "net.pth", arch=make)
    assert agrees(open_model(tmp_path / "net.pth", arch=make, unsafe=True), net)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "holds dict, expected a state dict"),
        ([torch.zeros(1)], "holds list, expected a state dict"),
        (torch.zeros(1), "holds Tensor, expected a state dict"),
        ({"weights": {"a": torch.zeros(1)}}, "does not fit make_net: it has 9 tensors; .*1 unknown .a."),
        ({1: torch.zeros(1)}, r"holds dict of \['1'\], expected a state dict"),
    ],
)
def test_checkpoints_of_other_things(tmp_path, content, match):
    torch.save(content, tmp_path / "net.pth")
    with refused(match):
        open_model(tmp_path / "net.pth", arch=make_net)


@pytest.mark.parametrize("size", [0, 5, 9, 200, 700])
@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_truncated(tmp_path, name, size):
    path = weights(make_net(), tmp_path / "net.safetensors")
    torch.save(make_net().state_dict(), tmp_path / "net.pth")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:size])
    with refused("damaged"):
        open_model(path, arch=make_net)


def test_weights_that_do_not_fit(tmp_path):
    path = weights(make_net(7), tmp_path / "net.safetensors")
    with refused(r"does not fit make_net: it has 9 tensors; 2 of another shape \(4.bias \(7,\) for \(5,\), "):
        open_model(path, arch=make_net)
    with refused(r"it has 2 tensors; 2 missing \(1.0.bias, 1.0.weight\); 9 unknown \(0.bias, 0.weight, 1.bias, ...\)"):
        open_model(path, arch=lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(C * H * W, K))))


# ---- choices


def test_two_networks_in_one_file(tmp_path):
    """None of which is the obvious one."""
    state = make_net().state_dict()
    torch.save({**under("left.", state), **under("right.", moved(state))}, tmp_path / "net.pth")
    with refused("holds several networks of this architecture, with other weights, at left, right: save the one"):
        open_model(tmp_path / "net.pth", arch=make_net)


def test_counters_of_batches_may_miss(tmp_path):
    """Torch had none before 2018."""
    net = make_net()
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(under("module.", state), tmp_path / "net.pth")
    assert agrees(open_model(tmp_path / "net.pth", arch=make_net), net)


def test_what_lies_beside_the_weights_without_a_prefix_is_no_loss(tmp_path):
    """It may as well be the part of a larger network that this architecture lacks."""
    torch.save({**make_net().state_dict(), "5.weight": torch.ones(3)}, tmp_path / "net.pth")
    with refused("1 unknown .5.weight."):
        open_model(tmp_path / "net.pth", arch=make_net)


# ---- what is put aside is not made


class Config:
    def __init__(self):
        self.lr = 0.1


def test_other_objects_are_refused_by_name(tmp_path):
    torch.save({"model": make_net().state_dict(), "config": Config()}, tmp_path / "net.pth")
    with refused("more than weights.*Config.*argument unsafe"):
        open_model(tmp_path / "net.pth", arch=make_net)
    assert agrees(open_model(tmp_path / "net.pth", arch=make_net, unsafe=True), make_net())


class Calling:
    """Pickled as a call of something under a harmless name."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments

    def __reduce__(self):
        return self.name, self.arguments


@pytest.mark.parametrize("function", [np.load, np.save, pathlib.Path, collections.namedtuple])
def test_functions_of_harmless_modules_are_not_called(tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    net = make_net()
    torch.save({"model": net.state_dict(), "x": Calling(function, "written", "x")}, tmp_path / "net.pth")
    before = sorted(tmp_path.iterdir())
    try:
        opened = open_model(tmp_path / "net.pth", arch=make_net)
    except ValueError:  # of a name that torch itself knows, and does not take for this
        opened = None
    assert opened is None or agrees(opened, net)
    assert sorted(tmp_path.iterdir()) == before


def test_an_ordered_dict_with_attributes(tmp_path):
    """As state dicts are, which carry their versions."""
    net = make_net()
    state = OrderedDict(net.state_dict())
    state._metadata = {"": {"version": 1}}
    torch.save({"model": state}, tmp_path / "net.pth")
    assert agrees(open_model(tmp_path / "net.pth", arch=make_net), net)


def test_a_pickled_network_in_a_checkpoint(tmp_path):
    """As {"model": network, "epoch": 3}: opened as it is, where unpickling is allowed."""
    net = make_net()
    torch.save({"model": net, "epoch": 3}, tmp_path / "net.pth")
    with refused("argument"):
        open_model(tmp_path / "net.pth")
    assert agrees(open_model(tmp_path / "net.pth", unsafe=True), net)
