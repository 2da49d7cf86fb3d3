"""Bad input at the doors of `screen` and `detect`, and what an error leaves behind. Bad files: test_inputs_raise.py."""

from __future__ import annotations

import re

import numpy as np
import pytest
import synthetic
import torch

import bre
from bre.views.images import MAX_VALUES

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return synthetic.labelled(0, 4, 60, SHAPE)


class Net(torch.nn.Module):
    """Linear; gives NaN from call `bad_from` on."""

    def __init__(self, classes: int = 4, bad_from: int | None = None):
        super().__init__()
        self.linear = torch.nn.Linear(64, classes)
        self.bad_from, self.calls = bad_from, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits = self.linear(x.flatten(1))
        return logits * torch.nan if self.bad_from is not None and self.calls > self.bad_from else logits


def refused(match: str):
    return pytest.raises(bre.InputError, match=re.escape(match))


@pytest.fixture(params=["screen", "detect"])
def verb(request):
    return bre.screen if request.param == "screen" else lambda data, **options: bre.detect(Net(), data, **options)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True, np.nan])
def test_seed(verb, data, seed):
    with refused(f"seed: expected an integer >= 0, below 2^63, got {seed!r}"):
        verb(data, seed=seed)


@pytest.mark.parametrize("alpha", [0, 1e-300, 9e-5, 1, -0.1, 1.5, np.nan, np.inf, "0.05", None, True])
def test_alpha(verb, data, alpha):
    with refused(f"alpha: expected a number from 0.0001 to below 1, got {alpha!r}"):
        verb(data, alpha=alpha)


def test_unknown_backend(verb, data):
    with pytest.raises((bre.InputError, bre.BackendUnavailable), match="quantum"):
        verb(data, backend="quantum")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_backend_that_is_not_here(verb, data):
    with pytest.raises(bre.BackendUnavailable, match="cuda"):
        verb(data, backend="cuda")


@pytest.mark.parametrize("counts", [(60, 49), (60, 49, 49), (60, 10, 10, 10, 10)])
def test_too_few_large_classes(verb, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    with refused("at least 2 classes with 50 images each are needed"):
        verb((synthetic.images(0, len(labels), SHAPE), labels))


def test_images_too_large(verb):
    side = int(MAX_VALUES**0.5) + 1
    images = np.zeros((150, 1, side, side), np.uint8)
    labels = np.repeat(np.arange(3), 50)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, 3))
    run = bre.screen if verb is bre.screen else lambda data: bre.detect(model, data)
    with refused(f"at most {MAX_VALUES} values"):
        run((images, labels))


# ---- models


def test_fewer_logits_than_classes(data):
    with refused("gives 3 logits but the labels go up to 3"):
        bre.detect(Net(3), data)


@pytest.mark.parametrize("bad_from", [0, 1, 4])
@pytest.mark.parametrize("training", [True, False])
def test_nan_logits_and_the_model_is_left_as_it_was(data, bad_from, training):
    model = Net(bad_from=bad_from).train(training)
    model.linear.train(not training)
    model.linear.bias.requires_grad_(False)
    with refused("NaN or infinite logits"):
        bre.detect(model, data)
    assert (model.training, model.linear.training) == (training, not training)
    assert (model.linear.weight.requires_grad, model.linear.bias.requires_grad) == (True, False)


@pytest.mark.parametrize("given", [{"mean": [0.5]}, {"std": [0.5]}])
def test_mean_without_std(data, given):
    with refused("give both the mean and the std, or neither (arguments mean, std)"):
        bre.detect(Net(), data, **given)


def test_mean_for_other_channels(data):
    with refused("mean and std have 3 values, the images have 1 channels"):
        bre.detect(Net(), data, mean=[0.5] * 3, std=[0.5] * 3)


# ---- interrupted


@pytest.mark.parametrize("after", [0, 2, 5])
def test_interrupted(verb, data, after, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads, calls = torch.get_num_threads(), 0

    def progress(stage: str, fraction: float) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    model = Net()
    run = (
        (lambda: bre.screen(data, progress=progress))
        if verb is bre.screen
        else (lambda: bre.detect(model, data, progress=progress))
    )
    with pytest.raises(KeyboardInterrupt):
        run()
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert list(tmp_path.iterdir()) == []
