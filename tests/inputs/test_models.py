"""Every kind of model, good and bad: modules, exported programs, TorchScript, pickles."""

import contextlib
import json
import os
import pickle
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bre.errors import InputError
from bre.inputs import Classifier, open_model
from bre.inputs.models.devices import moved, usable

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


@pytest.fixture
def net():
    return make_net()


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


@pytest.fixture(scope="module")
def pt2(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(export(make_net().eval()), path)
    return path


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


# ---- modules


def test_module_gives_its_evaluation_logits(net):
    classifier = checked(net)
    assert isinstance(classifier, Classifier)
    assert classifier.num_classes == K
    assert classifier.device == torch.device("cpu")
    assert (classifier.mean, classifier.std) == ((0.0,) * C, (1.0,) * C)
    with classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))
    assert repr(classifier) == "<Classifier Sequential: 5 classes on cpu>"


def test_module_is_left_as_it_was(net):
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    flags = [m.training for m in net.modules()]
    grads = [p.requires_grad for p in net.parameters()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    classifier = checked(net)
    with contextlib.suppress(KeyboardInterrupt), classifier:
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        with classifier:  # entering twice is the same as once
            classifier.logits(X.clone().requires_grad_()).sum().backward()
        assert not any(m.training for m in net.modules())
        raise KeyboardInterrupt
    assert [m.training for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()] == grads
    assert all(p.grad is None for p in net.parameters())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_two_classifiers_of_one_module_give_it_back_as_it_was(net):
    net.train()
    first, second = Classifier(net), Classifier(net)
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert not net.training
    second.__exit__()
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_one_thread_at_a_time_holds_a_module(net):
    net.train()
    inside, most = [], []

    def use(_):
        with Classifier(net) as classifier:
            inside.append(None)
            most.append(len(inside))
            classifier.logits(X)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(16)))
    assert max(most) == 1
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_a_classifier_is_opened_once(net):
    classifier = open_model(net)
    assert open_model(classifier) is classifier
    norms = {"mean": [0.0] * C, "std": [1.0] * C}
    for options in (norms, {"input_size": (8, 8)}, {"arch": "timm:x"}, {"run_arch": True}):
        with pytest.raises(InputError, match="is a Classifier already"):
            open_model(classifier, **options)


def test_gradients_reach_the_input(net):
    classifier = checked(net)
    x = X.clone().requires_grad_()
    with classifier:
        classifier.logits(x)[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_images_are_counted(net):
    classifier = checked(net)
    assert (classifier.forward_images, classifier.backward_images) == (4, 2)  # two more try the folded copy
    with classifier:
        classifier.logits(X)
        classifier.logits(X)
    assert classifier.forward_images == 4 + 2 + 2 * len(X)


def test_mean_and_std_are_kept_as_floats(net):
    classifier = checked(net, mean=np.full(3, 0.5), std=torch.full((3,), 0.25))
    assert (classifier.mean, classifier.std) == ((0.5,) * 3, (0.25,) * 3)
    assert open_model(classifier) is classifier


def test_more_logits_than_labels_is_fine(net):
    open_model(net).check((C, H, W), 2)


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
    with refused("truncated or damaged|no model file"):
        open_model(tmp_path / "net.pt2")


def test_pt2_of_an_old_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as z:
        z.writestr("version", "8.1")
        z.writestr("serialized_exported_program.json", "{}")
        z.writestr("serialized_state_dict.pt", pickle.dumps(Attack()))
    with refused("old torch"):
        open_model(tmp_path / "net.pt2")
    assert not hasattr(sys, "bre_was_run")


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
    with refused("a zip file but no model"):
        open_model(tmp_path / "set.npz")
    with refused("no such model file"):
        open_model("resnet18")
    with refused("no such model file"):
        open_model(tmp_path)


def test_safetensors_that_begin_like_a_pickle(tmp_path):
    header = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode().ljust(0x80)
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with refused("holds only weights"):
        open_model(tmp_path / "w.safetensors")


# ---- what is not a classifier of these images


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (None, "got NoneType"),
        (lambda x: x, "got function"),
        (nn.Flatten, "got the class Flatten: pass an instance"),
        ({"weight": torch.zeros(1)}, "state dict holds only weights"),
    ],
)
def test_things_that_are_no_model(model, match):
    with refused(match):
        open_model(model)


class Returning(nn.Module):
    """A network whose logits go through `change`."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = make_net(), change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda y: {"logits": y}, "one .n, K. tensor of logits, got dict"),
        (lambda y: (y, y), "got tuple"),
        (lambda y: y[:, :, None], r"\(2, K\) logits for 2 images, got shape \(2, 5, 1\)"),
        (lambda y: y[:1], r"got shape \(1, 5\)"),
        (lambda y: y.mean(), r"got shape \(\)"),
        (lambda y: y.argmax(1, keepdim=True), "float logits, got torch.int64"),
        (lambda y: y * float("nan"), "NaN or infinite logits for 2 of 2"),
        (lambda y: y / 0, "NaN or infinite"),
        (lambda y: y[:, :4], "gives 4 logits but the labels go up to 4"),
        (lambda y: y.softmax(1), "probabilities.*before softmax"),
        (lambda y: y.detach(), "do not depend on the input"),
        (
            lambda y: y + torch.rand(y.shape, generator=torch.Generator().manual_seed(1)),
            "random in evaluation",
        ),
    ],
)
def test_answers(change, match):
    with refused(match):
        checked(Returning(change))


def test_a_gradient_that_is_not_finite():
    with refused("gradient with respect to the images is missing or not finite"):
        checked(Returning(lambda y: y + (y - y).abs().sqrt()))


def test_images_the_model_cannot_take(net):
    with refused(r"cannot take a batch of \(2, 1, 8, 8\) float32 images: RuntimeError"):
        open_model(net).check((1, H, W), K)
    with refused("cannot take a batch"):
        checked(net.half())


def test_nan_later_on(net):
    classifier = checked(net)
    x = X.clone()
    x[3] = float("nan")
    with classifier, refused("NaN or infinite logits for 1 of 7"):
        classifier.logits(x)
    assert not net[0].weight.grad_fn
    assert net[0].weight.requires_grad


def test_logits_outside_the_context(net):
    with refused("inside `with classifier:`"):
        open_model(net).logits(X)


def test_weights_without_values_or_on_several_devices(net):
    net[0].to("meta")
    with refused("several devices.*cpu.*meta"):
        open_model(net)
    with refused("meta device"):
        open_model(net.to("meta"))


@pytest.mark.parametrize(
    ("mean", "std", "match"),
    [
        ((0.5,) * 3, None, "both the mean and the std, or neither"),
        (None, (0.5,) * 3, "both the mean and the std, or neither"),
        ((0.5,) * 3, (0.5,) * 2, "mean has 3 values and std has 2"),
        ((0.5,) * 3, (0.5, 0.0, 0.5), "std must be > 0"),
        ((0.5,) * 3, (-1.0,) * 3, "std must be > 0"),
        ((float("nan"),) * 3, (1.0,) * 3, "finite"),
        (0.5, 0.5, "mean must be a sequence of one number per channel, got 0.5"),
        ("abc", (1, 1, 1), "mean must be a sequence"),
    ],
)
def test_normalisation(net, mean, std, match):
    with refused(match):
        open_model(net, mean=mean, std=std)


def test_normalisation_for_other_channels(net):
    with refused("mean and std have 1 values, the images have 3 channels"):
        checked(net, mean=[0.5], std=[0.5])


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


# ---- precision


@pytest.mark.parametrize("precision", ["float16", torch.bfloat16, None, 16, ["float32"]])
def test_bad_precision(net, precision):
    with refused("precision: expected 'float32' or 'bfloat16', got"):
        open_model(net, precision=precision)
    with refused("precision: expected"):
        open_model(Classifier(net), precision=precision)
    with refused("precision: expected"):  # before any file is looked for
        open_model("nowhere.pt2", precision=precision)


def test_precision_is_said_when_a_model_is_opened(net):
    half = open_model(net, precision="bfloat16")
    assert (half.precision, open_model(net).precision) == (torch.bfloat16, torch.float32)
    assert open_model(half) is half
    with refused("this model is a Classifier already"):
        open_model(half, precision="bfloat16")


# ---- devices


def test_what_is_read_from_a_file_is_moved(net):
    """To the meta device, the only other one that every machine has."""
    there = torch.device("meta")
    for model in (net, export(net.eval())):
        found = moved(model, there)
        module = found.module() if isinstance(found, torch.export.ExportedProgram) else found
        assert {p.device for p in (*module.parameters(), *module.buffers())} == {there}
        assert module(X.to(there)).device == there


def test_device_goes_with_a_path(net):
    for model in (net, Classifier(net)):
        with refused("a device goes with the path of a model"):
            open_model(model, device="cpu")


@pytest.mark.parametrize("device", ["meta", "gpu", "", None, 1.5, "cuda:x"])
def test_what_is_no_device(device):
    with refused("device must be 'cpu', 'cuda' or 'cuda:N'"):
        usable(device)


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with refused("no cuda here: this torch .* is built without CUDA"):
        usable("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usable("cuda:1") == torch.device("cuda:1")
    with refused("no cuda:2 here: torch sees 2 CUDA devices"):
        usable("cuda:2")
