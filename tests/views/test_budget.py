"""How many images a network gets: by what it keeps of one, on any machine; and that no more than these go at once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision_ops
from torch import Tensor, nn

from bre.inputs import Classifier, open_dataset
from bre.verbs.verdict import judge
from bre.views import budget, fitting
from bre.views.budget import CHEAP_BYTES, MIN_SHARE, PASS_BYTES, Budget, bytes_per_image
from bre.views.model import ModelEvidence, search_model
from bre.views.pattern_batch import MAX_ROWS

K, SHAPE = 4, (3, 8, 8)
PIXELS = 2 * 4 * 3 * 8 * 8  # bytes of an image and of its gradient


class Kept(nn.Module):
    """Keeps `copies` float32 copies of every image for the gradient, and weights."""

    def __init__(self, copies: int, classes: int = K, size: int = 192):
        super().__init__()
        torch.manual_seed(0)
        self.copies, self.fc = copies, nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.copies):
            x = x.sin()  # which keeps what it was given
        return self.fc(x.flatten(1))


def needed(module: nn.Module, shape: tuple[int, int, int] = SHAPE, **options: Any) -> int:
    with Classifier(module.eval(), **options) as classifier:
        classifier.check(shape, K)
        return bytes_per_image(classifier, shape)


@pytest.mark.parametrize("copies", [0, 1, 5])
def test_what_autograd_keeps_of_an_image_and_no_weights(copies: int) -> None:
    assert needed(Kept(copies)) == PIXELS * (1 + copies / 2)


def test_the_same_whatever_number_of_images_a_program_takes() -> None:
    class Four(Kept):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 4
            return super().forward(x)

    assert needed(Four(3), batch=(4, 4)) == needed(Kept(3))
    assert needed(Kept(3), batch=(2, None)) == needed(Kept(3))


def test_tensors_that_share_memory_count_once() -> None:
    class Both(Kept):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x)

    assert needed(Both(1)) == needed(Kept(1))


def of(bytes_each: int, monkeypatch: pytest.MonkeyPatch) -> Budget:
    monkeypatch.setattr(budget, "bytes_per_image", lambda *_: bytes_each)
    return Budget.of(SimpleNamespace(), SHAPE)  # type: ignore[arg-type]


def test_cheap_networks_have_all_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(1, monkeypatch) == of(CHEAP_BYTES, monkeypatch) == Budget() == Budget(MAX_ROWS, 1.0)


def test_dearer_networks_have_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(4 * CHEAP_BYTES, monkeypatch) == Budget(MAX_ROWS // 4, 0.5)
    assert of(2 * PASS_BYTES, monkeypatch) == Budget(1, MIN_SHARE)
    budgets = [of(n, monkeypatch) for n in np.geomspace(CHEAP_BYTES / 2, 1000 * CHEAP_BYTES, 200).astype(int).tolist()]
    for before, after in itertools.pairwise(budgets):  # smoothly
        assert 0.97 <= after.share / before.share <= 1
        assert after.rows <= before.rows
    assert [Budget(1, 0.3).images(n) for n in (1, 10, 150)] == [1, 3, 45]


# ---- the whole view within it


@pytest.fixture
def held() -> Iterator[contextlib.ExitStack]:
    """Classifiers in use until the test ends."""
    with contextlib.ExitStack() as stack:
        yield stack


def view_of(
    held: contextlib.ExitStack, module: nn.Module, shape: tuple[int, int, int], each: int = 8, **options: Any
) -> ModelEvidence:
    """Of images of noise, each class of a grey level of its own."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 100, (K * each, *shape), dtype=np.uint8)
    labels = np.repeat(np.arange(K), each)
    pixels += (40 * labels[:, None, None, None]).astype(np.uint8)
    classifier = held.enter_context(Classifier(module, **options))
    classifier.check(shape, K)
    return search_model(
        classifier,
        open_dataset((pixels, labels)),
        shared=lambda *_: None,
        seed=0,
        backend="auto",
        progress=lambda *_: None,
    )


def test_no_more_images_at_once_and_the_same_answers(
    held: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = view_of(held, Kept(1), SHAPE, each=40)
    monkeypatch.setattr(budget, "PASS_BYTES", 7 * needed(Kept(1)))
    module, taken = Kept(1), []
    module.register_forward_pre_hook(lambda _, inputs: taken.append(len(inputs[0])))
    view = view_of(held, module, SHAPE, each=40)
    carriers = view.carriers(1, "model_statistic")
    assert max(taken) <= 7
    for got, statistic in zip(view.statistics, want.statistics, strict=True):
        np.testing.assert_allclose(got.values, statistic.values, rtol=1e-3)
    np.testing.assert_allclose(carriers.log_odds, want.carriers(1, "model_statistic").log_odds, rtol=1e-2, atol=1e-2)


# ---- networks of people, at their size


@pytest.fixture
def timm() -> Any:
    """timm, whose import is slow; skipped where it or its torchvision cannot be imported."""
    if not torch.cuda.is_available():
        torchvision_ops.declare()
    pytest.importorskip("torchvision", reason="pip install 'bre-engine[timm]'", exc_type=(ImportError, RuntimeError))
    return pytest.importorskip("timm", reason="pip install 'bre-engine[timm]'")


def _resnet(block: str, width: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import resnet

        return resnet.ResNet(getattr(resnet, block), [1, 1, 1, 1], num_classes=K, width_per_group=width)

    return make


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=K, **options)

    return make


@pytest.mark.parametrize(
    "make",
    [
        _resnet("BasicBlock", 64),
        _resnet("Bottleneck", 16),
        _timm("vit_tiny_patch16_224", depth=2),
        _timm("convnext_atto", depths=(1, 1, 1, 1)),
    ],
    ids=["resnet18", "resnet50", "vit", "convnext"],
)
def test_networks_at_224(
    timm: Any, held: contextlib.ExitStack, make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in {"FIRST_ROWS": 8, "FIT_ROWS": 4, "HELD_OUT_ROWS": 4, "HELD_OUT_IMAGES": 2}.items():
        monkeypatch.setattr(fitting, name, number)
    monkeypatch.setattr("bre.views.pattern_batch.MAX_STEPS", fitting.STEPS)
    torch.manual_seed(0)
    view = view_of(held, make().eval(), (3, 224, 224), mean=(0.5,) * 3, std=(0.25,) * 3)
    judge([view], 0.05)
    assert MIN_SHARE <= view._budget.share < 1
    assert 1 < view._budget.rows < 400
    patterns = torch.stack(list(view._fitted.patterns.values()))
    assert patterns.shape == (K, 3, 224, 224)
    assert patterns.flatten(1).norm(dim=1).max() > 0.5  # others may have nothing to do, where all is one class
