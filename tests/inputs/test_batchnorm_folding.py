"""Folding batch norms: the same logits and gradients, nothing of the user's changed, and plain where it cannot be."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from bre.inputs import Classifier
from bre.inputs.models.batchnorm_folding import folded

C, K = 3, 5
X = torch.rand(6, C, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Every kind of neighbour: conv-norm pairs, a norm of a sum, one of a branching convolution, one without one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(C, 6, 3, 2, "valid", bias=False), nn.BatchNorm2d(6)
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, 1, "same", groups=2), nn.BatchNorm2d(6, affine=False))
        self.branching, self.branching_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.alone = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, K)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        y = self.alone(y + self.second(y))
        z = self.branching(y)
        return self.fc((z + self.branching_norm(z)).mean((2, 3)))


PAIRS, NORMS = 2, 4


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Block()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-1, 1)
            m.running_var.uniform_(0.2, 3)
            if m.affine:
                nn.init.uniform_(m.weight, -2, 2)
                nn.init.uniform_(m.bias, -1, 1)
    return net.eval().requires_grad_(False)


def exported(net: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(net, (X[:2],), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}})


def norms_left(graph_module: torch.fx.GraphModule) -> int:
    modules = dict(graph_module.named_modules())
    return sum(
        isinstance(modules.get(str(n.target)), nn.BatchNorm2d) or "batch_norm" in str(n.target)
        for n in graph_module.graph.nodes
        if n.op in ("call_module", "call_function")
    )


def logits_and_gradient(net: nn.Module) -> tuple[Tensor, Tensor]:
    x = X.clone().requires_grad_()
    y = net(x)
    return y.detach(), torch.autograd.grad((y * torch.arange(K)).sum(), x)[0]


@pytest.mark.parametrize("kind", ["module", "exported", "decomposed"])
def test_same_logits_and_gradients_from_fewer_norms(net, kind):
    module = net
    if kind != "module":
        program = exported(net)
        if kind == "decomposed":
            with warnings.catch_warnings():  # torch's own, of what it deprecates
                warnings.simplefilter("ignore", FutureWarning)
                program = program.run_decompositions()
        module = program.module()
    fast = folded(module)
    assert norms_left(fast) == NORMS - PAIRS
    for got, want in zip(logits_and_gradient(fast), logits_and_gradient(net), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_the_module_is_not_touched(net):
    before = copy.deepcopy(net.state_dict())
    strides = [p.stride() for p in net.parameters()]
    names = [name for name, _ in net.named_modules()]
    fast = folded(net)
    for buffer in fast.buffers():
        if buffer.is_floating_point() and not any(buffer is own for own in net.buffers()):
            buffer.zero_()
    assert [p.stride() for p in net.parameters()] == strides
    assert [name for name, _ in net.named_modules()] == names
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Branches(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > 0 else -x)


class Remembering(Block):
    """Keeps what it computed, in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.named = [], {}

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.first(x)
        self.seen.append(self.features)
        self.named["first"] = self.features
        return super().forward(x)


def test_what_a_module_keeps_while_it_is_traced_is_forgotten():
    net = Remembering().eval()
    assert folded(net) is not None
    assert (net.seen, net.named, hasattr(net, "features")) == ([], {}, False)
    net(X)
    kept = net.features
    assert folded(net) is not None
    assert net.features is net.seen[0] is net.named["first"] is kept


def test_hooks_of_what_would_be_traced_are_not_run():
    net, seen = nn.Sequential(Block(), nn.Identity()).eval(), []
    net[0].register_forward_hook(lambda *given: seen.append(given))
    assert folded(net) is None
    assert seen == []


def test_what_cannot_be_traced_or_has_nothing_to_fold():
    assert folded(Branches().eval()) is None
    assert folded(nn.Sequential(nn.Conv2d(C, K, 8), nn.Flatten()).eval()) is None


class Odd(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize("case", ["own statistics", "subclass", "hook", "padding", "parametrized"])
def test_pairs_that_are_more_than_they_seem_stay(case):
    convolution, norm = nn.Conv2d(C, K, 3, padding=1), nn.BatchNorm2d(K)
    if case == "own statistics":
        norm = nn.BatchNorm2d(K, track_running_stats=False)
    elif case == "subclass":
        convolution = Odd(C, K, 3)
    elif case == "hook":
        convolution.register_forward_hook(lambda m, args, out: out * 2)
    elif case == "padding":
        convolution.padding_mode = "circular"
    else:
        torch.nn.utils.parametrizations.weight_norm(convolution)
    assert folded(nn.Sequential(convolution, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()) is None


def test_a_classifier_uses_it_from_the_second_call_on(net):
    with Classifier(net) as classifier:
        first, second = classifier.logits(X), classifier.logits(X)
        assert classifier.forward_images == 2 * len(X) + 2
        assert isinstance(classifier._network, torch.fx.GraphModule)
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(first, net(X), rtol=0, atol=0)


def test_a_classifier_in_bfloat16_uses_it_too(net):
    with Classifier(net, precision="bfloat16") as classifier:
        first, second = classifier.logits(X), classifier.logits(X.bfloat16())
        assert classifier.forward_images == 2 * len(X) + 4  # folded and not, both in float32
        assert isinstance(classifier._network, torch.fx.GraphModule)
        for logits in (first, second):
            assert logits.dtype == torch.bfloat16
            torch.testing.assert_close(logits.float(), net(X), rtol=0.05, atol=0.05)


def test_weights_changed_between_two_uses_count(net):
    classifier = Classifier(net)
    with classifier:
        classifier.logits(X)
    net.first.weight.mul_(-1)
    with classifier:
        classifier.logits(X)
        torch.testing.assert_close(classifier.logits(X), net(X), rtol=1e-5, atol=1e-5)


class Unsteady(Block):
    """Whose forward does one thing when traced and another when run."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if isinstance(x, Tensor) else x + 1)


def test_a_copy_that_answers_otherwise_is_not_used():
    torch.manual_seed(0)
    net = Unsteady().eval()
    assert folded(net) is not None
    with Classifier(net) as classifier:
        for _ in range(2):
            torch.testing.assert_close(classifier.logits(X), net(X), rtol=0, atol=0)
        assert classifier._network is net
