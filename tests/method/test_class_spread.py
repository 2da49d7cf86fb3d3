import numpy as np
import pytest

from bre.method.class_spread import ClassSpread, between_share

K, D, EACH = 6, 20, 200


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of K classes (n, D), labels, and the classes' means; correlated within classes."""
    generator = np.random.default_rng(0)
    mixing = np.eye(D) + generator.standard_normal((D, D)) / 8
    means = generator.standard_normal((K, D))
    labels = np.repeat(np.arange(K), EACH)
    return means[labels] + generator.standard_normal((K * EACH, D)) @ mixing, labels, means


@pytest.mark.parametrize(("sources", "expected"), [((3,), 0.0), ((1, 2), 0.5), ((1, 2, 3, 4, 5), 1.0)])
def test_images_of_other_classes_differ_as_these_do_whatever_they_have_in_common(labelled, sources, expected):
    values, labels, _ = labelled
    spread = ClassSpread.of(values, labels)
    shares = []
    for first in range(K - 1 if len(sources) == 2 else 1):
        chosen = np.isin(labels, [(source + first - 1) % (K - 1) + 1 for source in sources])
        trigger = 10 * np.random.default_rng(1).standard_normal(D)
        variance = spread.without(0).variance(values[chosen] + trigger)
        assert variance is not None
        shares.append(between_share([variance]))
    assert np.mean(shares) == pytest.approx(expected, abs=0.15)


def test_layers_that_do_not_tell_the_classes_apart_say_nothing(labelled):
    values, labels, means = labelled
    spread = ClassSpread.of(values - means[labels], labels)
    assert spread.without(0).variance(values[:50]) is None
    assert between_share([]) == 0.0


def test_one_other_class_has_nothing_between(labelled):
    values, labels, _ = labelled
    two = labels < 2
    assert ClassSpread.of(values[two], labels[two]).without(0).variance(values[:50]) is None


def test_all_classes_but_one_whiten(labelled):
    values, labels, _ = labelled
    others = labels != 2
    within = ClassSpread.of(values, labels).without(2).whiten(values[others])
    groups = [within[labels[others] == k] for k in np.unique(labels[others])]
    assert np.mean([group.var(0) for group in groups]) == pytest.approx(1, abs=0.1)
