"""benchmarks/accuracy/baselines.py: the verdicts must be theirs, or the comparison says nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.accuracy import baselines

K, EACH, SHAPE, TARGET = 6, 40, (3, 6, 6), 4


class Backdoored(nn.Module):
    """Sees classes in broad blocks of the image, and the target in one pixel too."""

    def __init__(self, weight: float):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.blocks = nn.Parameter(torch.randn(K, *SHAPE, generator=generator))
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.einsum("nchw,kchw->nk", x - 0.5, self.blocks)
        planted = self.weight * (x[:, :, 0, 0] - 0.5).clamp_min(0).sum(1)
        return logits + planted[:, None] * torch.eye(K)[TARGET]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Images that look like their class's block, all the same where the backdoor lies."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(K).repeat_interleave(EACH)
    x = 0.5 + 0.08 * Backdoored(0).blocks.detach()[labels] + 0.02 * torch.randn(K * EACH, *SHAPE, generator=generator)
    x[:, :, 0, 0] = 0.51
    return (x.clamp(0, 1) * 255).byte(), labels


def test_pairwise_finds_the_target_and_only_that(data):
    found = baselines.pairwise(Backdoored(15).requires_grad_(False), *data, classes=K)
    assert found.targets == (TARGET,)
    assert found.poisoned
    assert found.statistic < 0.05
    assert np.isnan(np.diag(found.norms)).all()
    assert np.isfinite(found.norms).sum() == K * (K - 1)
    assert found.forward_images == K * EACH + 2 * found.backward_images
    assert found.backward_images == found.steps * baselines.PAIR_IMAGES
    clean = baselines.pairwise(Backdoored(0).requires_grad_(False), *data, classes=K)
    assert not clean.poisoned
    assert clean.targets == ()


def test_the_pairs_p_value_is_that_of_the_largest_reciprocal():
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        norms = 1 / generator.gamma(20, 1, (K, K))
        np.fill_diagonal(norms, np.nan)
        p_values.append(baselines._pair_test(norms)[0])
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.25  # a fitted gamma is somewhat too sure of itself


def test_neural_cleanse_fits_the_smallest_mask_to_the_target(data, monkeypatch):
    monkeypatch.setattr(baselines, "CLEAN_SHARE", 0.2)
    found = baselines.neural_cleanse(Backdoored(200).requires_grad_(False), *data, classes=K)
    assert int(np.argmin(found.norms)) == TARGET
    assert found.targets == (TARGET,)
    assert found.steps <= found.most_steps == K * baselines.EPOCHS
    assert found.forward_images == found.backward_images == found.steps * 48


def test_bounded_runs_give_no_verdict(data):
    net = Backdoored(60).requires_grad_(False)
    some = baselines.pairwise(net, *data, classes=K, pairs=2, most=1)
    assert (some.steps, some.poisoned, some.targets) == (2, False, ())
    one = baselines.neural_cleanse(net, *data, classes=K, only=(1,), most=2)
    assert (one.steps, one.poisoned) == (2, False)
