"""Networks in memory, good and bad, and what they answer."""

import contextlib
import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_nets import C, H, K, W, X, answer, checked, export, make_net, quiet, refused
from torch import nn

from bre.inputs import Classifier, open_model
from bre.inputs.models.devices import moved, usable


@pytest.fixture
def net():
    return make_net()


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
        with refused("is a Classifier already"):
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
        (lambda y: {"out": y}, "one .n, K. tensor of logits, alone or as `logits`, got dict"),
        (lambda y: {"logits": [y]}, "got dict"),
        (lambda y: (y, y), "got tuple"),
        (lambda y: y[:, :, None], r"\(2, K\) logits for 2 images, got shape \(2, 5, 1\)"),
        (lambda y: y[:1], r"got shape \(1, 5\)"),
        (lambda y: y.mean(), r"got shape \(\)"),
        (lambda y: y.argmax(1, keepdim=True), "float logits, got torch.int64"),
        (lambda y: y * float("nan"), "NaN or infinite logits for 2 of 2"),
        (lambda y: y / 0, "NaN or infinite"),
        (lambda y: y[:, :4], "gives 4 logits but the labels go up to 4"),
        (lambda y: y.softmax(1), "probabilities.*before softmax"),
        (lambda y: y.sigmoid(), "numbers between 0 and 1 only.*before it"),
        (lambda y: (y * 40).sigmoid(), "numbers between 0 and 1 only"),
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
    with refused("has weights in float16, and bre gives it float32: .*model.float.*argument precision"):
        checked(net.half())
    with refused("has weights in float64"):
        checked(make_net().double())


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
        (0.5, (0.5,) * 3, "mean has 1 values and std has 3"),
        (True, True, "mean must be a number, or a sequence of one per channel, got True"),
        ("abc", (1, 1, 1), "mean must be a number, or a sequence"),
    ],
)
def test_normalisation(net, mean, std, match):
    with refused(match):
        open_model(net, mean=mean, std=std)


def test_normalisation_for_other_channels(net):
    with refused("mean and std have 2 values, the images have 3 channels"):
        checked(net, mean=[0.5] * 2, std=[0.5] * 2)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (np.float32(0.5), 0.25), ([0.5], [0.25])])
def test_one_mean_for_all_channels(net, mean, std):
    classifier = checked(net, mean=mean, std=std)
    assert (classifier.mean, classifier.std) == ((0.5,) * C, (0.25,) * C)


# ---- logits that stand in something else


class Output(dict):
    """As transformers' outputs: a mapping and an object in one."""

    @property
    def logits(self):
        return self["logits"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"logits": y, "hidden": [y, y]},
        lambda y: SimpleNamespace(logits=y, loss=None),
        lambda y: Output(logits=y),
        lambda y: (y,),
        lambda y: [y],
    ],
)
def test_logits_are_found(net, wrap):
    classifier = checked(Returning(wrap))
    with classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_last_layer_that_is_not_trained_is_no_sigmoid(net, bias):
    """transformers and torchvision begin with zeros there: all logits lie between 0 and 1, and none of them moves."""
    nn.init.zeros_(net[-1].weight)
    nn.init.constant_(net[-1].bias, bias)
    open_model(nn.Sequential(net, nn.Linear(K, K), Zeroed(bias))).check((C, H, W), K)


class Zeroed(nn.Module):
    """Constant to the eye, with a gradient."""

    def __init__(self, bias):
        super().__init__()
        self.bias = bias

    def forward(self, x):
        return 0 * x + self.bias


def test_logits_that_happen_to_lie_between_0_and_1(net):
    """For grey images only: those of others do not."""
    nn.init.constant_(net[-1].bias, 0.5)
    net[-1].weight.data *= 0.01
    assert 0 < answer(net).min() < answer(net).max() < 1
    checked(net)


# ---- wrapped, copied, half done


class Without(nn.Module):
    """A network without a length, whose compiled wrapper has no truth value."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_networks(net, whole):
    model = torch.compile(Without(net), backend="eager") if whole else Without(torch.compile(net, backend="eager"))
    with checked(model) as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))
    assert net.training, "given back as it was"


def test_a_network_that_compiles_itself(net):
    model = Without(net)
    model.compile(backend="eager")
    with checked(model) as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


def test_parallel_networks(net):
    with checked(nn.DataParallel(net)) as classifier:
        torch.testing.assert_close(classifier.logits(X), answer(net))


def test_a_network_that_was_copied_in_inference_mode(net):
    with torch.inference_mode():
        copied = copy.deepcopy(net)
        loaded = make_net()
    for model in (copied, loaded):
        with checked(model) as classifier:
            torch.testing.assert_close(classifier.logits(X), answer(net))
        assert all(p.is_inference() for p in model.parameters()), "the caller's stays as it is"


def test_inference_mode_allows_no_gradients(net):
    with torch.inference_mode(), refused("call it outside of that"):
        checked(net)


def test_lazy_networks_must_have_been_run(net):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(K))
    with refused("the model's LazyLinear have no weights yet: run it once"):
        open_model(model)
    with torch.no_grad():
        model(X)
    checked(model)


def test_quantised_networks_are_told_to_be(net):
    with quiet():
        warnings.simplefilter("ignore")  # torch deprecates all of this
        linear = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)))
        prepared = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(C, K, 8), nn.Flatten()).eval()
        prepared.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
        torch.ao.quantization.prepare(prepared, inplace=True)(X)
        static = torch.ao.quantization.convert(prepared)
    for model in (linear, static):
        with quiet(), refused("is quantised, and quantised layers have no gradient"):
            checked(model)


class Fixed(nn.Module):
    def __init__(self, size, **facts):
        super().__init__()
        self.head = nn.Linear(C * size * size, K)
        vars(self).update(facts)

    def forward(self, x):
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "if it was built for another size, say which .argument input_size"),
        ({"image_size": 6}, "seems to be built for 6 x 6"),
        ({"pretrained_cfg": {"input_size": (3, 6, 5)}}, "seems to be built for 6 x 5"),
        ({"config": SimpleNamespace(image_size=[6, 6])}, "seems to be built for 6 x 6"),
    ],
)
def test_a_network_of_one_size_names_input_size(facts, said):
    with refused(said):
        checked(Fixed(6, **facts))
    checked(Fixed(6, **facts), input_size=(6, 6))


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
