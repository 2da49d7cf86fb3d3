"""TorchScript files whose tensors are not where they say; torch.jit.load reads beyond the end of many of these."""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile

import fuzzing
import fuzzing_doors
import fuzzing_models
import pytest
import torch
from mutations import Bee
from real_files import refused
from torch import nn

from bre.inputs import open_model


class Net(nn.Module):
    """With what a plain network may carry: lists, constants, buffers of several types, views, and none at all."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 3)
        self.norm = nn.BatchNorm2d(3)
        self.sizes, self.scales, self.flags = [1, 2], [0.5], [True]
        self.register_buffer("view", torch.arange(12, dtype=torch.int16).reshape(3, 4).t())
        self.register_buffer("empty", torch.zeros(0, 3, dtype=torch.float64))
        self.register_buffer("wide", torch.ones(1, dtype=torch.bfloat16).expand(5))

    def forward(self, x):
        return self.linear((self.norm(x) * torch.tensor([1.0])).flatten(1)) * self.scales[0] + self.wide.float()[:3]


@pytest.fixture
def path(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript
        torch.jit.script(Net().eval()).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


def rewritten(path, change):
    """The file with {member: bytes} changed in place, names without the archive's own."""
    with zipfile.ZipFile(path) as z:
        members = {name.partition("/")[2]: z.read(name) for name in z.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as z:
        for name, content in members.items():
            z.writestr(f"net/{name}", content)
    return path


def test_a_plain_network_is_read(path):
    open_model(path).check((3, 4, 4), 3)


def test_every_kind_of_weight_is_read(tmp_path):
    """Also after half(), with tied weights, and from torch.jit.trace, which stores constants."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.Linear(12, 12))
    net[2].weight = net[1].weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.trace(net.eval(), torch.zeros(2, 3, 2, 2))).save(str(tmp_path / "net.pt"))
    open_model(tmp_path / "net.pt").check((3, 2, 2), 3)


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_record_that_holds_less_than_is_read(path, left):
    def cut(members):
        name = max((n for n in members if n.startswith("data/")), key=lambda n: len(members[n]))
        members[name] = members[name][:left]

    with refused(r"net\.pt is damaged.*the record data/\d holds less than the 144 elements"):
        open_model(rewritten(path, cut))


VIEW = b"K\x00(K\x04K\x03t(K\x01K\x04t"  # offset 0, sizes (4, 3), strides (1, 4): the first tuple may be memoised


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (b"K\x00(K\x04K\x03t(K\x01K\x05t", r"reaches element 13 of 12"),
        (b"K\x01(K\x04K\x03t(K\x01K\x04t", r"reaches element 12 of 12"),
        (b"K\x00(K\x04K\x04t(K\x01K\x04t", r"reaches element 15 of 12"),
        (b"J\xff\xff\xff\xff(K\x04K\x03t(K\x01K\x04t", "offset -1"),
        (b"K\x00(K\x04K\x03t(K\x01J\xff\xff\xff\xfft", r"strides \(1, -1\)"),
        (b"K\x00(K\x04K\x03t(K\x01t", r"strides \(1,\)"),
        (b"K\x00(K\x04K\x03t(K\x01\x8a\x08\0\0\0\0\0\0\0\x7ft", "strides"),
        (b"K\x00(K\x04K\x03t(K\x01Nt", "None"),
    ],
)
def test_a_tensor_that_reaches_out_of_its_record(path, told, said):
    def lie(members):
        assert members["data.pkl"].count(VIEW) == 1
        members["data.pkl"] = members["data.pkl"].replace(VIEW, told)

    with refused(said):
        open_model(rewritten(path, lie))


@pytest.mark.parametrize(
    ("pkl", "said"),
    [
        (pickle.dumps(Bee(), 2), "its pickle names (builtins|__builtin__).exec"),
        (pickle.dumps(Bee(), 4), "torch does not write"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers a value 2147483647"),
        (b"\x80\x02c__torch__.torch.classes.quantized\nConv2dPackedParamsBase\n.", "net.pt is quantised"),
        (b"\x80\x02ctorch\nQInt8Storage\n.", "net.pt is quantised"),
        (b"\x80\x02(X\x07\0\0\0storageK\x01X\x01\0\0\x000X\x03\0\0\0cpuK\x05tQ.", "which is no storage"),
        (b"\x80\x02K\x00)R.", "not callable"),  # torch takes a number for one of the names that it read before
        (b"", "damaged"),
        (b"\x80\x02N", "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
def test_pickles_that_torch_does_not_write(path, name, pkl, said):
    with refused(said):
        open_model(rewritten(path, lambda members: members.update({name: pkl})))
    assert not hasattr(sys, "bre_was_run")


@pytest.mark.parametrize(
    "line",
    [
        'torch.save(x, "OUT")',
        'torch.save (x, "OUT")',
        'torch.save\t(x, "OUT")',
        'f = torch.save\n    f(x, "OUT")',
        'getattr(torch, "save")(x, "OUT")',
        'getattr(torch, "sa" "ve")(x, "OUT")',
        'getattr(torch, "sav\\x65")(x, "OUT")',
        'getattr (torch, "sa" "ve")(x, "OUT")',
        'ops.aten.save(x, "OUT")',
        'ops.aten.save (x, "OUT")',
        'ops.image.write_file("OUT", x)',
        'ops . image . write_file("OUT", x)',
        'o = ops\n    o.image.write_file("OUT", x)',
        'x = torch.from_file("OUT")',
        's = __torch__.torch.classes.dist_c10d.FileStore("OUT", 1)',
    ],
)
def test_a_program_that_reads_or_writes_files(path, line, tmp_path):
    def add(members):
        name = next(name for name in members if name.endswith(".py") and b"def forward" in members[name])
        body = line.replace("OUT", str(tmp_path / "written"))
        head, forward, rest = members[name].partition(b"-> Tensor:\n")
        members[name] = head + forward + f"    {body}\n".encode() + rest

    with refused("could run code"):
        open_model(rewritten(path, add)).check((3, 4, 4), 3)
    assert not (tmp_path / "written").exists()


def test_the_form_of_2019(path):
    with refused("a form that torch left in 2020"):
        open_model(rewritten(path, lambda members: members.update({"model.json": b"{}"})))


@pytest.mark.parametrize("index", [170, 248, 635, 811])
def test_files_on_which_torch_crashed_or_raised_what_it_should_not(index, tmp_path_factory, tmp_path):
    """Found by `python tests/fuzzing.py --seed 2`."""
    found = {"torchscript": fuzzing_doors.doors()["torchscript"]}
    real = fuzzing_doors.corpus(found, tmp_path_factory.mktemp("corpus"))
    fuzzing_models.fill_torchscript(real, fuzzing_models.small_net().eval())
    sys.addaudithook(fuzzing._audit)
    assert fuzzing.run_one(found["torchscript"], "torchscript", 2, index, tmp_path)  # "refused", by this torch
