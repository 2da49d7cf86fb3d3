import numpy as np
import pytest
import torch

from bre.method import clusters
from bre.method.robust import APART, MOST_PLANTED, centre_and_spread, median_and_spread


def draws(count: int, share: float, distance: float, rows: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal scores (rows, count), a share of them further up by a distance; and which."""
    generator = torch.Generator().manual_seed(0)
    upper = torch.arange(count) < share * count
    return torch.randn(rows, count, generator=generator) + distance * upper, upper


def test_median_and_spread_of_a_normal_with_a_few_far_out():
    values = np.concatenate([np.random.default_rng(0).normal(3, 2, 4000), np.full(40, 1e6)])
    np.testing.assert_allclose(median_and_spread(values), (3, 2), atol=0.12)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.35, 0.5, 0.59])
def test_what_is_planted_in_up_to_most_of_a_class_moves_neither_centre_nor_spread(share):
    scores, _ = draws(400, share, 8.0)
    centre, spread = centre_and_spread(scores)
    assert float(centre.abs().mean()) < 0.45
    assert 0.8 < float(spread.mean()) < 1.7


def test_more_than_most_is_what_the_class_is():
    scores, _ = draws(400, MOST_PLANTED + 0.05, 8.0)
    centre, _ = centre_and_spread(scores)
    assert (centre > 4).all()


@pytest.mark.parametrize("kind", ["normal", "uniform", "skewed", "heavy tails"])
def test_one_mode_is_taken_whole(kind):
    generator = np.random.default_rng(0)
    values = {
        "normal": lambda: generator.standard_normal((200, 100)),
        "uniform": lambda: generator.random((200, 100)),
        "skewed": lambda: generator.exponential(size=(200, 100)),
        "heavy tails": lambda: generator.standard_t(3, (200, 100)),
    }[kind]()
    scores = torch.from_numpy(values)
    centre, spread = centre_and_spread(scores)
    middle = scores.median(1, keepdim=True).values
    whole = 1.4826 * (scores - middle).abs().median(1, keepdim=True).values
    assert float((centre - middle).abs().median()) == 0
    assert float((spread / whole).median()) == pytest.approx(1)
    assert float((spread / whole).quantile(0.02)) > 0.7


def test_scores_of_half_a_class_are_far_above_the_others():
    scores, upper = draws(300, 0.5, 8.0)
    standard = clusters.standardised(scores)
    assert float(standard[:, upper].median()) > clusters.MEMBER_Z + 1
    assert APART > 2  # two halves of a uniform distribution


def test_few_and_equal_scores():
    for values in ([[1.0, 1.0, 1.0, 1.0]], [[0.0, 1.0]], [[2.0]]):
        centre, spread = centre_and_spread(torch.tensor(values))
        assert torch.isfinite(centre).all()
        assert torch.isfinite(spread).all()
