import numpy as np
import pytest
import torch

from bre.method import modes


def draws(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def planted(n: int, d: int, share: float, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal values (n, d), a share of them moved by a distance along a random direction; and which."""
    values, generator = draws(n, d, seed), np.random.default_rng(seed + 1)
    direction, carriers = generator.standard_normal(d), generator.random(n) < share
    return values + carriers[:, None] * distance * direction / np.linalg.norm(direction), carriers


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_a_planted_mode_stands_apart_at_any_share(share):
    values, carriers = planted(600, 20, share, 12.0)
    assert modes.held_out_separation(values) > 0.8 * min(share, 1 - share) * 300
    found = modes.search(values)
    assert found is not None
    along = values @ found.direction
    upper = found.modes.log_odds(along) > 0
    assert (upper == carriers).mean() > 0.995 or (upper != carriers).mean() > 0.995


def test_what_is_one_thing_does_not_fall_apart():
    """Normal, heavy-tailed, skewed: what natural classes look like along their directions."""
    generator = np.random.default_rng(3)
    for kind in range(6):
        values = draws(400, 12, kind)
        if kind % 3 == 1:
            values *= generator.chisquare(4, (400, 1)) ** -0.5
        if kind % 3 == 2:
            values = np.exp(values / 2)
        assert modes.held_out_separation(values) < 8


def test_whitening_takes_away_what_other_classes_vary():
    mixing = np.eye(6) + draws(6, 6, 4) / 5
    values = draws(4000, 6, 5) @ mixing
    whitened = modes.Whitening.of(modes.scatter(values), len(values) - 1).whiten(values)
    assert np.cov(whitened.T) == pytest.approx(np.eye(6), abs=0.1)


def test_a_channel_that_is_never_active_does_no_harm():
    values = draws(200, 5)
    values[:, 2] = 0
    whitened = modes.Whitening.of(modes.scatter(values), 199).whiten(values)
    assert np.isfinite(whitened).all()
    constant = modes.Whitening.of(torch.zeros(5, 5, dtype=torch.float64), 10)
    assert np.isfinite(constant.whiten(values)).all()
    assert modes.search(np.zeros((40, 5))) is None
    assert modes.held_out_separation(np.zeros((40, 5))) == 1


def test_held_out_scores_put_the_modes_at_zero_and_one():
    values, carriers = planted(500, 30, 0.3, 8.0)
    scores = modes.held_out_scores(values, draws(50, 30, 9), carriers.astype(float))
    assert scores is not None
    assert scores[0][carriers].mean() == pytest.approx(1, abs=0.1)
    assert scores[0][~carriers].mean() == pytest.approx(0, abs=0.1)
    assert scores[1].mean() == pytest.approx(0, abs=0.1)
    assert modes.held_out_scores(values, draws(50, 30, 9), np.zeros(500)) is None


def test_log_odds_are_bounded_and_rise_beyond_the_means():
    two = modes.TwoModes(0.5, (0.0, 1.0), (1.0, 0.01))
    odds = two.log_odds(np.array([-50.0, 0.0, 1.0, 1.2, 50.0]))
    assert np.abs(odds).max() <= modes.MAX_ODDS
    assert odds[0] <= 0
    assert odds[-1] >= 0
