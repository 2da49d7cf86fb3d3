"""Files of a whole network that are no exported programs: TorchScript, pickles, and what is no model at all."""

import json
import pickle
import sys
import warnings
import zipfile

import pytest
import torch
from small_nets import Attack, C, H, K, W, X, answer, checked, export, make_net, quiet, refused, rewrite, script
from torch import nn

from bre.inputs import open_model


@pytest.fixture
def net():
    return make_net()


# ---- TorchScript


@pytest.mark.parametrize("name", ["net.pt", "net.ts", "net"])
def test_torchscript_file(net, tmp_path, name):
    classifier = checked(script(net, tmp_path / name))
    with classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


def test_torchscript_module_is_left_as_it_was(net, tmp_path):
    with quiet():
        model = torch.jit.load(script(net.train(), tmp_path / "net.pt"))
    model.train()
    with checked(model) as classifier:
        assert not any(m.training for m in model.modules())
        torch.testing.assert_close(classifier.logits(X), answer(net))
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


class Saving(nn.Module):
    def forward(self, x):
        torch.save(x, "stolen.pt")
        return x.flatten(1)


def test_torchscript_that_touches_files(tmp_path):
    path = script(Saving(), tmp_path / "net.pt")
    with refused(r"holds 'save', which could run code"):
        open_model(path)


def test_torchscript_that_nests_without_end(net, tmp_path):
    """On which torch.jit.load runs out of stack, and ends the process."""
    path, name = script(net, tmp_path / "net.pt"), "code/__torch__/torch/nn/modules/container.py"
    deep = rewrite(path, tmp_path / "deep.pt", name, lambda code: code + b"\n" + b"(" * 5000)
    with refused("nests brackets deeper than 200"):
        open_model(deep)


# ---- pickles and other files


def test_pickled_files_need_unsafe(net, tmp_path):
    torch.save(net, tmp_path / "net.pth")
    torch.save(net.state_dict(), tmp_path / "state.pt")
    torch.save(net.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "attack.pkl").write_bytes(pickle.dumps(Attack()))
    for name in ("net.pth", "state.pt", "old.bin", "attack.pkl"):
        with refused(f"{name} is a pickle, which can run any code.*torch.export.save.*arguments arch, unsafe"):
            open_model(tmp_path / name)
    assert not hasattr(sys, "bre_was_run")
    with checked(tmp_path / "net.pth", unsafe=True) as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))
    with refused(
        "holds OrderedDict, not a model: if these are only weights, name what to load them into: .*argument arch"
    ):
        open_model(tmp_path / "state.pt", unsafe=True)


def test_other_files(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as z:
        z.writestr("images.npy", b"")
    with refused("holds only weights: name what to load them into: 'timm:NAME'"):
        open_model(tmp_path / "net.safetensors")
    with refused("is ONNX.*bre needs gradients.*torch.export"):
        open_model(tmp_path / "net.onnx")
    (tmp_path / "net.bin").write_bytes(b"\x08\x07")
    with refused("no model file that bre knows; expected .pt2"):
        open_model(tmp_path / "net.bin")
    with refused("holds numpy arrays"):
        open_model(tmp_path / "set.npz")
    with refused("no such model file"):
        open_model("resnet18")
    with refused("is a folder, and no config.json in it"):
        open_model(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


@pytest.mark.parametrize("arch", [None, make_net])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: damaged, or not yet downloaded"),
        (POINTER, "is a pointer file of git-lfs, not the model itself: fetch it with `git lfs pull`"),
        (b"\x08\x09\x12\x07pytorch\x1a\x062.13.0", "is ONNX"),
        (b"\x08\x09:\x80\x01", "is ONNX"),
        (b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras"),
        (b"\x1c\0\0\0TFL3", "is TensorFlow Lite"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\x93NUMPY\x01\0", "is one numpy array"),
        (b"\x1f\x8b\x08", "is compressed with gzip: unpack it"),
    ],
)
def test_files_that_people_have_instead(tmp_path, content, said, arch):
    (tmp_path / "net.pth").write_bytes(content)
    with refused(said) as caught:
        open_model(tmp_path / "net.pth", arch=arch)
    assert "unsafe" not in str(caught.value), "none of them is better when it is unpickled"


def test_a_real_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "net", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), tmp_path / "net.pth")
    with refused("is ONNX"):
        open_model(tmp_path / "net.pth", arch=make_net)


def test_a_traced_network(net, tmp_path):
    with quiet():
        torch.jit.trace(net.eval(), X).save(str(tmp_path / "net.pt"))
    with checked(tmp_path / "net.pt") as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


def test_what_a_network_was_traced_with_is_vetted(net, tmp_path):
    with quiet():
        torch.jit.trace(net.eval(), X).save(str(tmp_path / "net.pt"))
    for name, match in (("traced_inputs.pkl", "its pickle names"), ("other.pkl", "its pickle names")):
        path = rewrite(tmp_path / "net.pt", tmp_path / "bad.pt", name, lambda _: pickle.dumps(Attack(), 2))
        with refused(match):
            open_model(path)
    path = rewrite(tmp_path / "net.pt", tmp_path / "bad.pt", "data/0", lambda _: b"")
    with refused("holds less than the"):
        open_model(path)
    assert not hasattr(sys, "bre_was_run")


def test_quantised_files_are_told_to_be(tmp_path):
    with quiet():
        warnings.simplefilter("ignore")  # torch deprecates all of this
        linear = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)))
        torch.jit.save(torch.jit.script(linear), str(tmp_path / "net.pt"))
    with refused("net.pt is quantised, and quantised layers have no gradient"):
        open_model(tmp_path / "net.pt")


# ---- files that would unpack to far more than their size


@pytest.mark.parametrize("kind", ["pt2", "script", "checkpoint"])
def test_members_that_unpack_to_gigabytes(net, tmp_path, kind):
    """Refused by the sizes in the headers: nothing is unpacked. The headers' own word is enough for that."""
    path = tmp_path / "net"
    if kind == "pt2":
        torch.export.save(export(net.eval()), path.with_suffix(".pt2"))
        path, member = path.with_suffix(".pt2"), "models/model.json"
    elif kind == "script":
        path, member = (
            script(net, path),
            "constants.pkl",
        )  # code/*.py have names that depend on what was scripted before
    else:
        torch.save(net.state_dict(), path)
        member = "data.pkl"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "big", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info) + b" " * (1 << 27) * info.filename.endswith(member))
    assert (tmp_path / "big").stat().st_size < 1 << 20
    with refused("big would unpack to 0.1 GiB, .* times its size"):
        open_model(tmp_path / "big", arch=make_net if kind == "checkpoint" else None)


def test_safetensors_that_begin_like_a_pickle(tmp_path):
    header = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode().ljust(0x80)
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with refused("holds only weights"):
        open_model(tmp_path / "w.safetensors")
