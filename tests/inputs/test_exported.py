"""Exported programs, and their files: those that agree with the network, and those that could run code."""

import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from small_nets import Attack, C, K, X, answer, checked, export, make_net, quiet, refused, rewrite
from torch import nn

from bre.inputs import open_model


@pytest.fixture
def net():
    return make_net()


@pytest.fixture(scope="module")
def pt2(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(export(make_net().eval()), path)
    return path


# ---- exported programs


def test_exported_program_and_file_agree_with_the_module(net, pt2):
    for model in (export(net.eval()), pt2, str(pt2)):
        classifier = checked(model)
        with classifier:
            torch.testing.assert_close(classifier.logits(X), answer(net))
            torch.testing.assert_close(classifier.logits(X[:1]), answer(net)[:1])
    assert repr(classifier) == "<Classifier net.pt2: 5 classes on cpu>"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_a_fixed_batch_size_is_split_and_padded(net, size):
    classifier = checked(export(net.eval(), batch="fixed", example=size))
    x = X.clone().requires_grad_()
    with classifier:
        logits = classifier.logits(x)
        torch.testing.assert_close(logits, answer(net))
        (grad,) = torch.autograd.grad(logits[:, 1].sum(), x)
        (expected,) = torch.autograd.grad(net(y := X.clone().requires_grad_())[:, 1].sum(), y)
    torch.testing.assert_close(grad, expected)
    tried = min(size, 2)  # of each context's first images, by the folded copy
    assert classifier.forward_images == 2 + tried + len(X) + tried


def test_a_batch_limit_is_kept(net):
    shapes = {"input": {0: torch.export.Dim("batch", min=2, max=3)}}
    program = torch.export.export(net.eval(), (X[:3],), dynamic_shapes=shapes)
    classifier = checked(program)
    with classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


def test_an_exported_part_inside_a_module(net):
    model = nn.Sequential(nn.Identity(), export(net.eval()).module(), nn.Dropout())
    classifier = checked(model)
    flags = [m.training for m in model.modules()]
    with classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))
    assert [m.training for m in model.modules()] == flags


def test_exported_in_training_mode(net):
    program = export(net.train(), batch="fixed")
    with refused("exported in training mode .*batch_norm.*training=True.*model.eval"):
        open_model(program)
    with refused("exported in training mode"):
        open_model(nn.Sequential(program.module()))
    with refused("exported in training mode .*dropout"):
        open_model(torch.export.export(nn.Sequential(nn.Flatten(), nn.Dropout()), (X,)))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.net = make_net()

    def forward(self, input):
        self.calls.add_(1)
        return self.net(input)


@pytest.mark.parametrize("functional", [False, True])
def test_exported_with_state(functional):
    program = export(Counting().eval())
    if functional:
        with quiet():
            program = program.run_decompositions()
    with refused("changes its own buffers.*calls"):
        open_model(program)


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x.flatten(1) + y.flatten(1)


def test_exported_for_other_inputs(net):
    with refused("one batch of images, its inputs are"):
        open_model(torch.export.export(TwoInputs(), (X, X)))
    with refused(r"float32 \(n, C, H, W\), it takes torch.float64"):
        open_model(torch.export.export(net.double().eval(), (X.double(),)))
    with refused(r"it takes torch.float32 \(7, 192\)"):
        open_model(torch.export.export(nn.Linear(192, K), (X.flatten(1),)))


def test_exported_for_another_shape(pt2):
    with refused(r"exported for images \(3, 8, 8\), the dataset has \(3, 9, 8\)"):
        open_model(pt2).check((C, 9, 8), K)


# ---- .pt2 files that could run code


def edit(old, new):
    def change(data):
        text = data.decode()
        assert old in text
        return text.replace(old, new).encode()

    return change


def edit_tree(data):
    program = json.loads(data)
    spec = json.loads(program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"])
    context = {"default_factory_module": "os", "default_factory_name": "system", "dict_context": []}
    spec[1] = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}
    program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)
    return json.dumps(program).encode()


def edit_guards(data):
    return json.dumps(json.loads(data) | {"guards_code": ["__import__('os').system('true')"]}).encode()


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (
            "models/model.json",
            edit("torch.ops.aten.relu.default", "torch.os.system"),
            "operator 'torch.os.system'",
        ),
        ("models/model.json", edit("torch.ops.aten.relu.default", "_operator.methodcaller"), "methodcaller"),
        (
            "models/model.json",
            edit("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
            "from_file",
        ),
        ("models/model.json", edit("Symbol(", "exec("), "shape expression .exec"),
        ("models/model.json", edit("positive=True", "positive=().__class__"), "shape expression"),
        ("models/model.json", edit_tree, "output structure.*os"),
        ("models/model.json", edit_guards, "shape expression .__import__"),
        ("models/model.json", edit('"name": "relu"', '"name": "relu; print()"'), "relu; print"),
        (
            "data/weights/model_weights_config.json",
            edit('"use_pickle": false', '"use_pickle": true'),
            "a pickled tensor",
        ),
        ("data/weights/model.pt", lambda _: pickle.dumps(Attack()), "data/weights/model.pt"),
        ("data/constants/opaque_obj_0", lambda _: pickle.dumps(Attack()), "opaque_obj_0"),
        ("data/aotinductor/model/model.so", lambda _: b"\x7fELF", "aotinductor"),
        ("data/sample_inputs/model.pt", lambda _: pickle.dumps(Attack()), "sample inputs"),
        ("models/model.json", lambda data: data[:-100], "damaged"),
        ("models/model.json", lambda _: b"[" * 100_000, "damaged"),
    ],
)
def test_pt2_with_code_in_it(pt2, tmp_path, name, change, match):
    path = rewrite(pt2, tmp_path / "net.pt2", name, change)
    with refused(match):
        open_model(path)
    assert not hasattr(sys, "bre_was_run")


def test_pt2_from_a_missing_device(pt2, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    change = edit('"type": "cpu"', '"type": "cuda"')
    path = rewrite(pt2, tmp_path / "net.pt2", "data/weights/model_weights_config.json", change)
    with refused("exported on cuda, which this machine lacks"):
        open_model(path)


def test_unsafe_reads_a_pt2_unchecked(pt2, net):
    with checked(pt2, unsafe=True) as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


@pytest.mark.parametrize("size", [0, 1, 3000, 20000])
def test_truncated_pt2(pt2, tmp_path, size):
    (tmp_path / "net.pt2").write_bytes(pt2.read_bytes()[:size])
    with refused("damaged|no model file"):
        open_model(tmp_path / "net.pt2")


def test_pt2_whose_parts_do_not_fit_together(pt2, tmp_path):
    """Found by `python tests/support/fuzzing.py --seed 7`: torch reads it, and fails when it is to be called."""

    def rename(data):
        program = json.loads(data)
        program["graph_module"]["module_call_graph"][0]["fqn"] = "0"
        return json.dumps(program).encode()

    with refused("net.pt2 is damaged, or no program that can be called"):
        open_model(rewrite(pt2, tmp_path / "net.pt2", "models/model.json", rename))


def test_pt2_of_an_old_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as z:
        z.writestr("version", "8.1")
        z.writestr("serialized_exported_program.json", "{}")
        z.writestr("serialized_state_dict.pt", pickle.dumps(Attack()))
    with refused("old torch"):
        open_model(tmp_path / "net.pt2")
    assert not hasattr(sys, "bre_was_run")


# ---- trained victims, where they are at hand


def test_trained_cases():
    cases = os.environ.get("BRE_CASES")
    if not cases or not (Path(cases) / "zoo").is_dir():
        pytest.skip("BRE_CASES does not name a folder with zoo/ in it")
    paths = sorted((Path(cases) / "zoo").glob("*.pt2"))
    assert paths
    for path in paths:
        classifier = open_model(path)
        classifier.check((3, 32, 32), 10)
        assert classifier.num_classes == 10
