"""Weights and the name of what to load them into: timm, torchvision, and code of one's own."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from real_files import refused
from small_weights import C, H, K, W, X, agrees, make_net, weights
from torch import nn

from bre.inputs import open_model
from bre.inputs.models.preprocessing import Resized


def make_number():
    return 3


# ---- architectures


@pytest.mark.parametrize("arch", ["resnet18", "timm:", ":x", "", 3])
def test_what_names_no_architecture(tmp_path, arch):
    with refused("arch must be 'timm:NAME', 'torchvision:NAME' or 'module:callable'"):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch=arch)


def test_code_runs_only_when_told(tmp_path, monkeypatch):
    path = weights(net := make_net(), tmp_path / "net.safetensors")
    (tmp_path / "bre_test_nets.py").write_text("import sys; sys.bre_was_run = True\nfrom test_architectures import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    with refused("runs the code of a module: .*argument run_arch"):
        open_model(path, arch="bre_test_nets:make_net")
    with refused("runs the code"):
        open_model(path, arch="bre_test_nets:make_net", unsafe=True)
    assert not hasattr(sys, "bre_was_run")
    assert agrees(open_model(path, arch="bre_test_nets:make_net", run_arch=True), net)
    del sys.bre_was_run


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("bre_no_such_module:make", "cannot be imported: ModuleNotFoundError.*PYTHONPATH=."),
        ("test_architectures:nothing", "cannot be imported: AttributeError"),
        ("test_architectures:K", "is int, expected a callable"),
        ("test_architectures:make_number", "gives int, expected a torch.nn.Module"),
        ("test_architectures:refused", "cannot be built: TypeError"),
    ],
)
def test_code_that_gives_no_network(tmp_path, arch, match):
    with refused(match):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch=arch, run_arch=True)


def test_arch_goes_with_a_file():
    with refused("an architecture goes with the path of a file of weights, got Sequential"):
        open_model(make_net(), arch=make_net)
    with refused("no such model file"):
        open_model("/no/such/file", arch=make_net)


# ---- the size that a network sees


def test_input_size_resizes_on_the_way_in(tmp_path):
    path = weights(net := make_net(), tmp_path / "net.safetensors")
    big = torch.rand(2, C, 16, 12)
    small = nn.functional.interpolate(big, (H, W), mode="bilinear", antialias=True)
    for model, options in ((path, {"arch": make_net}), (net, {}), (torch.export.export(net.eval(), (X[:2],)), {})):
        classifier = open_model(model, input_size=(H, W), **options)
        classifier.check((C, 16, 12), K)
        with classifier:
            x = big.clone().requires_grad_()
            logits = classifier.logits(x)
            torch.testing.assert_close(logits, net.eval()(small))
            (grad,) = torch.autograd.grad(logits.sum(), x)
            assert grad.abs().sum() > 0
    for bad in (8, (8,), (0, 8), (8.0, 8), (10**6, 8)):
        with refused("input_size must be .height, width."):
            open_model(net, input_size=bad)


def test_an_image_of_the_right_size_is_left_alone():
    assert torch.equal(Resized(nn.Identity(), (H, W))(X), X)


# ---- timm


def test_timm_weights(timm, tmp_path):
    net = timm.create_model("resnet10t", num_classes=K)
    state = torch.random.get_rng_state()
    classifier = open_model(weights(net, tmp_path / "net.safetensors"), arch="timm:resnet10t")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert classifier.mean == pytest.approx((0.485, 0.456, 0.406))
    assert classifier.std == pytest.approx((0.229, 0.224, 0.225))
    assert classifier.source == "net.safetensors (timm:resnet10t)"
    x = torch.rand(2, C, 32, 32)
    assert agrees(classifier, net, x, (C, 32, 32))
    own = open_model(tmp_path / "net.safetensors", arch="timm:resnet10t", mean=(0, 0, 0), std=(1, 1, 1))
    assert agrees(own, net, x, (C, 32, 32))


def test_timm_folders_bring_their_preprocessing(timm, tmp_path):
    net = timm.create_model("resnet10t", num_classes=K)
    net.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 48, 40)}
    timm.models.save_for_hf(net, tmp_path, model_config={"num_classes": K}, safe_serialization=True)
    classifier = open_model(tmp_path / "model.safetensors", arch="timm:resnet10t")
    assert classifier.mean == (0.1, 0.2, 0.3)
    assert classifier.std == (0.4, 0.5, 0.6)
    assert agrees(classifier, Resized(net, (48, 40)), torch.rand(2, C, 32, 32), (C, 32, 32))
    own = open_model(tmp_path / "model.safetensors", arch="timm:resnet10t", input_size=(32, 32))
    assert agrees(own, net, torch.rand(2, C, 32, 32), (C, 32, 32))


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[1]",
        "[" * 100_000,
        {"architecture": "another", "pretrained_cfg": {"mean": [9, 9, 9], "std": [9, 9, 9]}},
        {"architecture": "resnet10t", "pretrained_cfg": 3},
    ],
)
def test_configurations_that_are_none(timm, tmp_path, config):
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    path = weights(timm.create_model("resnet10t", num_classes=K), tmp_path / "net.safetensors")
    assert open_model(path, arch="timm:resnet10t").mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"mean": [0, 0, 0], "std": [0, 0, 0]}, "std must be > 0"),
        ({"mean": [0, 0, float("nan")], "std": [1, 1, 1]}, "finite"),
        ({"input_size": [3, 10**9, 10**9]}, "input size must be"),
        ({"input_size": [3, "a", {}]}, "input size must be"),
    ],
)
def test_configurations_of_nonsense(timm, tmp_path, facts, match):
    config = {"architecture": "resnet10t", "pretrained_cfg": {"classifier": "fc", "first_conv": "conv1.0", **facts}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = weights(timm.create_model("resnet10t", num_classes=K), tmp_path / "net.safetensors")
    with refused(match):
        open_model(path, arch="timm:resnet10t")


def test_timm_networks_of_one_size_see_it(timm, tmp_path):
    net = timm.create_model("test_vit", num_classes=K)
    path = weights(net, tmp_path / "net.safetensors")
    size = net.pretrained_cfg["input_size"][1:]
    assert agrees(open_model(path, arch="timm:test_vit"), Resized(net, size), torch.rand(2, C, 32, 32), (C, 32, 32))
    net = timm.create_model("test_vit", num_classes=K, img_size=(32, 32))
    path = weights(net, tmp_path / "small.safetensors")
    classifier = open_model(path, arch="timm:test_vit", input_size=(32, 32))
    assert agrees(classifier, net, torch.rand(2, C, 32, 32), (C, 32, 32))


def test_timm_grey_networks(timm, tmp_path):
    net = timm.create_model("resnet10t", num_classes=K, in_chans=1)
    classifier = open_model(weights(net, tmp_path / "net.safetensors"), arch="timm:resnet10t")
    assert agrees(classifier, net, torch.rand(2, 1, 32, 32), (1, 32, 32))
    assert classifier.mean == (0.0,), "timm's default is for three channels"


@pytest.mark.parametrize("name", ["no_such_net", "hf-hub:someone/something", "local-dir:/tmp", "../resnet18"])
def test_names_that_timm_does_not_have(timm, tmp_path, name):
    with refused("timm .* has no network named"):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch=f"timm:{name}")


def test_weights_of_another_timm_network(timm, tmp_path):
    path = weights(timm.create_model("test_vit", num_classes=K), tmp_path / "net.safetensors")
    with refused("does not fit timm:resnet10t: it has .* missing .* unknown"):
        open_model(path, arch="timm:resnet10t")


# ---- torchvision


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_torchvision_weights(torchvision, tmp_path, name):
    net = torchvision.models.get_model(name, num_classes=K)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    classifier = open_model(tmp_path / "net.pth", arch=f"torchvision:{name}")
    assert classifier.mean == pytest.approx((0.485, 0.456, 0.406))
    assert agrees(classifier, net, torch.rand(2, C, 64, 64), (C, 64, 64))


def test_torchvision_networks_of_one_size(torchvision, tmp_path, monkeypatch):
    from torchvision.models import vision_transformer

    whole = vision_transformer.VisionTransformer
    small = {"num_layers": 1, "hidden_dim": 48, "num_heads": 2, "mlp_dim": 48}
    monkeypatch.setattr(vision_transformer, "VisionTransformer", lambda **options: whole(**{**options, **small}))
    net = torchvision.models.get_model("vit_b_32", num_classes=K, image_size=64)
    path = weights(net, tmp_path / "net.safetensors")
    classifier = open_model(path, arch="torchvision:vit_b_32", input_size=(64, 64))
    assert agrees(classifier, net, torch.rand(2, C, 64, 64), (C, 64, 64))
    with refused("square images only"):
        open_model(path, arch="torchvision:vit_b_32", input_size=(64, 32))


@pytest.mark.parametrize("name", ["no_such_net", "fasterrcnn_resnet50_fpn", "os"])
def test_names_that_torchvision_does_not_have(torchvision, tmp_path, name):
    with refused("torchvision has no classifier named"):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch=f"torchvision:{name}")


@pytest.mark.parametrize(("library", "found"), [("timm", "timm"), ("torchvision", "torchvision.models")])
def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch, library, found):
    monkeypatch.setitem(sys.modules, found, None)
    with refused(rf"needs {library}, which is not installed: pip install 'bre-engine\[{library}\]'"):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch=f"{library}:resnet18")


def test_a_library_that_is_broken_is_said_to_be(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with refused("timm, which cannot be imported here .*RuntimeError: operator torchvision::nms"):
        open_model(weights(make_net(), tmp_path / "net.safetensors"), arch="timm:resnet18")
