"""The statistics of a verdict: pure functions on arrays, no torch, no models, no images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..errors import InputError

# share of alpha; of the tests of the largest, the second, and each one after; source: simulated, in
# tests/method/test_stats.py: later tests reject far less than their alpha under the null (the largest is not that of a
# random sample any more), so that these may sum to more than one
RANK_SHARES = (0.75, 0.5, 0.25)
# degrees of freedom; that a spread known beforehand counts for; source: chosen, a few classes that happen to be alike
# make no outlier of another, and three classes are enough to see one
PRIOR_FREEDOM = 4
# classes; from so many on the upper tail is judged from the statistics themselves; source: chosen, fewer say little of
# their upper tail
TAIL_CLASSES = 20
# spacings; that the scale of the upper tail known beforehand counts for; source: simulated, tests/method/test_stats.py:
# where most statistics lie at a floor, few above it say little of their tail
PRIOR_SPACINGS = 8
# ratio; of the scale of the upper tail to the known standard deviation; source: simulated, likewise
PRIOR_TAIL = 0.6
# statistic; largest allowed; source: chosen, nothing computed is larger, or smaller than one by it
LARGEST_STATISTIC = 1e100
# standard deviations; of a normal score, at most; source: derived, doubles hold the chance of no larger one
MAX_NORMAL_SCORE = 37.0
TO_NORMAL = 1.4826  # ratio; of standard deviation to median absolute deviation of a normal; source: derived, 1 / 0.6745
CLOSE = 0.005  # of a logarithm; how precisely a threshold is sought; source: chosen, finer than a line on the page


@dataclass(frozen=True, eq=False)
class OutlierTest:
    """p_values: (K,) of each statistic against those below it; outliers: indices, largest first; p_value: of the set
    of statistics: the probability of an equally surprising set without any outlier."""

    p_values: np.ndarray
    outliers: tuple[int, ...]
    p_value: float


def outlier_test(statistics: np.ndarray, alpha: float, prior_sd: float = 0.0) -> OutlierTest:
    """Which of K positive statistics are too large to come from where the others come from?

    statistics: (K,) > 0, K >= 3, or 2 with a prior_sd; alpha: in (0, 1); prior_sd: what is known beforehand of the
    standard deviation of their logarithms, 0 if nothing is. Raises InputError on anything else.

    On a log scale, the largest against the others is a t statistic with K - 2 degrees of freedom, corrected for having
    been chosen among K (Grubbs, Technometrics 1969): exact for lognormal statistics and conservative for gamma ones,
    where a plugged-in gamma fit is too sure of itself. A known one counts for PRIOR_FREEDOM degrees of freedom beside
    the K - 2 (the moderated t of Smyth, Statistical Applications in Genetics and Molecular Biology 2004): a few others
    that happen to be alike make no outlier of the next. With TAIL_CLASSES or more, the gap above the next largest must
    also be surprising for an exponential tail of the logs (Renyi spacings), which covers tails as heavy as Pareto's.
    Where the least statistics are equal, they lie at a floor, and only spacings above it count. With a known spread,
    the tail's scale counts as PRIOR_TAIL of that, seen in PRIOR_SPACINGS. Outliers hide each other from that test, so
    the j-th largest is tested against those below it too (Rosner, Technometrics 1983), for j <= K // 3.
    tests/method/test_stats.py simulates all of this.
    """
    statistics = np.asarray(statistics, float)
    least = 2 if prior_sd else 3
    if statistics.ndim != 1 or len(statistics) < least:
        raise InputError(f"statistics: expected a vector of at least {least}, got shape {statistics.shape}")
    if not np.isfinite(statistics).all() or (statistics <= 0).any():
        raise InputError(f"statistics: expected positive finite numbers, got {statistics.tolist()[:8]}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected a number between 0 and 1, got {alpha!r}")
    if not 0 <= prior_sd < np.inf:
        raise InputError(f"prior_sd: expected a finite number >= 0, got {prior_sd!r}")
    order = np.argsort(-statistics, kind="stable")
    logs = np.log(statistics[order])
    tested = range(max(1, len(logs) // 3))
    adjusted = np.array(
        [min(1.0, _largest(logs[j:], prior_sd) / RANK_SHARES[min(j, len(RANK_SHARES) - 1)]) for j in tested]
    )
    count = max((j + 1 for j in tested if adjusted[j] <= alpha), default=0)
    below = logs[max(count, 1) :]
    p_values = np.ones(len(logs))
    for place, value in enumerate(logs):
        others = below if place < max(count, 1) else np.delete(logs[count:], place - count)
        if len(others) >= least - 1:
            p_values[order[place]] = min(1.0, (len(others) + 1) * _predictive(value, others, prior_sd))
    for place in range(count):
        p_values[order[place]] = min(p_values[order[place]], adjusted[place:count].min())
    return OutlierTest(p_values, tuple(order[:count].tolist()), float(adjusted.min()))


def _largest(logs: np.ndarray, prior_sd: float) -> float:
    """p-value of the largest (the first) of descending logs."""
    p_value = min(1.0, len(logs) * _predictive(logs[0], logs[1:], prior_sd))
    if len(logs) < TAIL_CLASSES:
        return p_value
    spacings = np.arange(1, len(logs)) * -np.diff(logs)
    above = int((logs > logs[-1]).sum())  # many may lie at a floor: that says nothing of the tail above it
    upper = spacings[: max(1, min(above, len(logs) // 2))]
    known = PRIOR_SPACINGS if prior_sd else 0
    freedom = len(upper) - 1 + known
    rest = (upper[1:].sum() + known * PRIOR_TAIL * prior_sd) / max(freedom, 1)
    tail = (1 + upper[0] / rest / freedom) ** -float(freedom) if rest > 0 else float(upper[0] == 0)
    return max(p_value, float(tail))


def _predictive(value: float, sample: np.ndarray, prior_sd: float) -> float:
    """P(a further draw from the normal that `sample` came from exceeds value)."""
    prior, mean = PRIOR_FREEDOM if prior_sd else 0, sample.mean()
    freedom = prior + len(sample) - 1
    deviation = np.sqrt((prior * prior_sd**2 + np.square(sample - mean).sum()) / freedom * (1 + 1 / len(sample)))
    if deviation == 0:
        return 0.0 if value > sample[0] else 1.0
    return float(special.stdtr(freedom, (mean - value) / deviation))


def joint_p_values(statistics: Sequence[np.ndarray], prior_sds: Sequence[float], correlation: float) -> np.ndarray:
    """(K,) of each class against the others by several statistics at once, corrected for K.

    statistics: (K,) each, positive, K >= 2; prior_sds: of each, as for `outlier_test`, > 0; correlation: of the
    statistics of a clean class, at most. Each gives a class a normal score, by `_predictive`; their sum is normal
    (Stouffer et al., The American Soldier 1949), of a variance that grows with their correlation. So a class that is
    somewhat large by each is told from one that is large by one of them alone.
    """
    scores = np.zeros(len(statistics[0]))
    for values, prior_sd in zip(statistics, prior_sds, strict=True):
        logs = np.log(values)
        chances = [_predictive(logs[k], np.delete(logs, k), prior_sd) for k in range(len(logs))]
        scores -= np.clip(special.ndtri(chances), -MAX_NORMAL_SCORE, MAX_NORMAL_SCORE)
    count = len(statistics)
    deviation = math.sqrt(count * (1 + (count - 1) * correlation))
    p_values: np.ndarray = np.minimum(1.0, len(scores) * special.ndtr(-scores / deviation))
    return p_values


def threshold(statistics: np.ndarray, alpha: float, prior_sd: float = 0.0) -> float | None:
    """The least value of the weakest outlier, or without one of the largest, at which `outlier_test` calls it an
    outlier, all others as they are; None where no value up to LARGEST_STATISTIC would be.

    statistics, alpha, prior_sd: as for `outlier_test`. Found by bisection, to CLOSE of its logarithm.
    """
    order = np.argsort(-statistics, kind="stable")
    count = max(1, len(outlier_test(statistics, alpha, prior_sd).outliers))
    weakest = order[count - 1]
    logs = np.log(statistics)

    def is_outlier(log: float) -> bool:
        changed = logs.copy()
        changed[weakest] = log
        return weakest in outlier_test(np.exp(changed), alpha, prior_sd).outliers

    low = float(logs[order[count]])  # as large as the next one: no outlier
    step = max(1.0, logs[weakest] - low)
    while not is_outlier(low + step):
        step *= 2
        if low + step > math.log(LARGEST_STATISTIC):  # not even then: the others are too far apart
            return None
    high = low + step
    while high - low > CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if is_outlier(middle) else (middle, high)
    return math.exp(high)


@dataclass(frozen=True)
class Mode:
    """A second mode of a sample: `inside` values between `low` and `high`, around `centre`, of `count` above the floor.
    log_likelihood_ratio: nats, 0 if there is none."""

    log_likelihood_ratio: float
    low: float
    high: float
    centre: float
    inside: int
    count: int

    @property
    def p_value(self) -> float:
        """Bound on the probability of so much evidence in a sample whose density decreases from the floor on."""
        intervals = min(MAX_INTERVALS, max(self.count, 1))
        return min(1.0, intervals * float(np.exp(-self.log_likelihood_ratio)))


MIN_MODE_VALUES = 5  # values; that make a mode; source: chosen, fewer are hardly a group
# intervals; independent ones that a search of a sample looks at, at most; source: simulated, p-values of samples
# without a mode in tests/method/test_stats.py
MAX_INTERVALS = 150
NO_MODE = Mode(0.0, np.inf, np.inf, np.inf, 0, 0)
SPAN_RATIO = 1.5  # ratio; of widths of intervals from one to the next; source: chosen, time grows with less


def second_mode(values: np.ndarray, *, floor: float, width: float) -> Mode:
    """The interval above `floor` that holds more of the values than any density that decreases from `floor` on can.

    values: (n,); width: of the narrowest interval. See `second_modes`.
    """
    scores = np.asarray(values, float)
    evidence, low, high, centre, inside = second_modes(scores[None], floor=floor, width=width)[0].tolist()
    if not evidence:
        return NO_MODE
    return Mode(evidence, low, high, centre, int(inside), int((scores > floor).sum()))


def second_modes(
    scores: np.ndarray, *, floor: float, width: float, least: int = MIN_MODE_VALUES, falling: bool = False
) -> np.ndarray:
    """`second_mode` of many samples at once: (P, 5) float64 of evidence in nats, low, high, centre, values inside;
    zeros and infinities where there is none.

    scores: (P, n); width: of the narrowest interval; least: values that make a mode. Of m values between floor and an
    upper edge, a decreasing density puts each into the last part p of the way with probability p at most. So k of them
    there are worth the scan statistic k log(k / mp) + (m - k) log((m - k) / m(1 - p)) nats (Kulldorff, Communications
    in Statistics 1997), maximised over upper edges and widths. The value that makes the edge does not count. falling:
    the density falls at least as one over the score does (floor > 0), so that p is a share of the logarithm's way: a
    narrow mode far out is worth more, and so is what is natural there.
    """
    out = np.tile([0.0, np.inf, np.inf, np.inf, 0.0], (len(scores), 1))
    above = np.sort(np.where(scores > floor, scores, np.inf).astype(np.float64), axis=1)
    counts = np.isfinite(above).sum(1)
    rows = np.flatnonzero(counts >= least)
    if not len(rows):
        return out
    edges = above[rows, : counts.max()]
    valid = np.isfinite(edges)
    edges = np.where(valid, edges, floor)
    best, starts, lows = _best_intervals(edges, valid, floor, width, least, np.log if falling else np.asarray)
    places = best.argmax(1)
    for number in np.flatnonzero(best.max(1) > 0):
        place = places[number]
        start, edge = starts[number, place], edges[number, place]
        centre = np.median(edges[number, start : place + 1])
        out[rows[number]] = best[number, place], lows[number, place], edge, centre, place + 1 - start
    return out


def _best_intervals(
    edges: np.ndarray,
    valid: np.ndarray,
    floor: float,
    width: float,
    least: int,
    scale: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the intervals that end at each of the edges (P, m), those with most evidence: evidence, number of the first
    value inside, low. valid: (P, m) bool, which edges there are, in ascending order; scale: of a score, along which the
    density decreases."""
    reach = np.maximum(edges.max(1) - floor, width)[:, None]
    apart = np.arange(len(edges))[:, None]  # samples are put side by side for one search
    shift = apart * (2 * reach.max() + 1)
    flat = (np.where(valid, edges, floor + reach.max() + 0.5) + shift).ravel()
    total = np.arange(edges.shape[1])
    scaled = scale(edges)
    whole = np.maximum(scaled - scale(np.array(floor)), 1e-12)
    best, starts, lows = np.zeros(edges.shape), np.zeros(edges.shape, np.int64), np.full(edges.shape, floor)
    for number in range(int(np.log(reach.max() / width) / np.log(SPAN_RATIO)) + 1):
        span = width * SPAN_RATIO**number
        low = np.maximum(edges - span, floor)
        first = np.searchsorted(flat, (low + shift).ravel()).reshape(edges.shape) - apart * edges.shape[1]
        inside = np.maximum(total - first, 0)
        expected = total * ((scaled - scale(low)) / whole)
        evidence = special.xlogy(inside, inside / np.maximum(expected, 1e-300)) + special.xlogy(
            total - inside, (total - inside) / np.maximum(total - expected, 1e-300)
        )
        usable = valid & (inside + 1 >= least) & (inside > expected)
        better = np.where(usable & (span <= reach * (1 + 1e-9)), evidence, 0.0) > best
        best, starts, lows = (np.where(better, a, b) for a, b in ((evidence, best), (first, starts), (low, lows)))
    return best, starts, lows


def bonferroni(*tests: OutlierTest) -> OutlierTest:
    """One test from several of the same K classes, each made at an equal part of alpha; they may depend on each other
    in any way (Bonferroni). A p-value that is NaN, of a class that was not tested, does not count."""
    p_values = np.minimum(1.0, len(tests) * np.fmin.reduce([test.p_values for test in tests]))
    outliers = dict.fromkeys(label for test in tests for label in test.outliers)
    return OutlierTest(p_values, tuple(outliers), min(1.0, len(tests) * min(test.p_value for test in tests)))


PRIOR_CHOICES = 10.0  # choices; that count for what a group of few members did not choose; source: chosen


def class_log_likelihood_ratio(upper: np.ndarray, lower: np.ndarray, kinds: int) -> np.ndarray:
    """How much each of `kinds` choices speaks for the upper group: log likelihood ratios, float64 (kinds,).

    upper, lower: int64 (n,) and (m,) in [0, kinds), what members of the two groups chose. Of the lower group, one more
    choice of each kind is counted; of the upper, PRIOR_CHOICES more that are made as the lower group makes them.
    """
    low = (np.bincount(lower, minlength=kinds) + 1) / (len(lower) + kinds)
    high = (np.bincount(upper, minlength=kinds) + PRIOR_CHOICES * low) / (len(upper) + PRIOR_CHOICES)
    odds: np.ndarray = np.log(high) - np.log(low)
    return odds


def flag_threshold(scores: np.ndarray, chosen: np.ndarray) -> float:
    """The score of a chosen one from which on most are chosen: scores (n,), chosen (n,) bool, not all False. It is the
    lowest of the chosen where no other is above it."""
    order = np.argsort(-scores, kind="stable")
    gain = np.where(chosen[order], np.cumsum(np.where(chosen[order], 1, -1)), -len(scores))
    return float(scores[order[len(gain) - 1 - int(gain[::-1].argmax())]])


def fisher_weight(first: np.ndarray, second: np.ndarray, log_odds: np.ndarray) -> float:
    """Of a second score beside a first, in units of first over second: Fisher's linear discriminant between the two
    groups of a sample. first, second: (n,); log_odds: (n,), of each for the upper group. 0 rather than a weight < 0."""
    upper = special.expit(log_odds) + 1e-12
    both, groups = np.stack([first, second], axis=1).astype(float), (upper, 1 - upper + 2e-12)
    means = [np.average(both, axis=0, weights=group) for group in groups]
    within = sum((both - mean).T @ ((both - mean) * group[:, None]) for mean, group in zip(means, groups, strict=True))
    direction = np.linalg.lstsq(within, means[0] - means[1], rcond=None)[0]
    return max(0.0, float(direction[1] / direction[0])) if direction[0] > 0 else 0.0


def two_normals(values: np.ndarray, rounds: int = 200) -> np.ndarray:
    """Log odds of each value for the upper of two normal components, float64 (n,). values: (n,), n >= 4.

    Expectation maximisation from Otsu's split (IEEE Transactions on Systems, Man, and Cybernetics 1979). The log odds
    are made monotone in the value: a wide component must not claim the far side of a narrow one, as scikit-learn's
    mixture lets it. Raises InputError for fewer values, and for NaN or infinities.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 4 or not np.isfinite(values).all():
        raise InputError(f"values: expected at least 4 finite numbers, got shape {values.shape}")
    if np.ptp(values) == 0:
        return np.full(len(values), -np.inf)
    high = (values > otsu_threshold(values)).astype(float)
    floor = 1e-3 * values.std()
    for _ in range(rounds):
        share = np.clip(high.mean(), 1e-6, 1 - 1e-6)
        means = np.array([np.average(values, weights=w + 1e-12) for w in (1 - high, high)])
        squares = [np.square(values - mean) for mean in means]
        variances = [np.average(square, weights=w + 1e-12) for square, w in zip(squares, (1 - high, high), strict=True)]
        widths = np.sqrt(variances) + floor
        densities = -0.5 * np.square((values[:, None] - means) / widths) - np.log(widths)  # but for a constant
        log_odds: np.ndarray = densities[:, 1] - densities[:, 0] + np.log(share / (1 - share))
        updated = special.expit(log_odds)
        if np.abs(updated - high).max() < 1e-6:
            break
        high = updated
    return _monotone(values, log_odds, means)


def otsu_threshold(values: np.ndarray) -> float:
    """The largest value (n,) of the lower part, of the split with the most variance between its parts."""
    ordered = np.sort(values)
    low_count = np.arange(1, len(values))
    low_sum = np.cumsum(ordered)[:-1]
    high_count = low_count[::-1]
    between = (low_sum / low_count - (ordered.sum() - low_sum) / high_count) ** 2 * low_count * high_count
    return float(ordered[between.argmax()])


def _monotone(values: np.ndarray, log_odds: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The log odds (n,) of values (n,), made to rise with the value from the lower component's mean on either side."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    monotone = np.where(ordered < means[0], np.minimum(log_odds[order], 0) - 1e-9, log_odds[order])
    monotone = np.where(ordered > means[1], np.maximum(monotone, 0) + 1e-9, monotone)
    pivot = int(np.searchsorted(ordered, means[0]))
    monotone[: pivot + 1] = np.minimum.accumulate(monotone[pivot::-1])[::-1]
    monotone[pivot:] = np.maximum.accumulate(monotone[pivot:])
    out = np.empty_like(log_odds)
    out[order] = monotone
    return out


# images; of a class whose evidence is taken as it is; source: chosen, about what sets of a few thousand have
REFERENCE_IMAGES = 400
# nats; evidence at REFERENCE_IMAGES images that natural classes have anyway: less is no more still; source: chosen, on
# classes of natural images of 100 to 1 600 images (docs/method.md)
NATURAL_EVIDENCE = 3.5


# images; that a class which is searched in blocks counts for: a constant number of planted images has a constant
# evidence there, and growth was seen up to as many; source: chosen, not measured on clean natural sets so far
IN_BLOCKS_IMAGES = 1600


def class_statistics(evidence: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """From the evidence of classes of very different sizes to statistics that can be compared: float64 (K,).

    evidence: (K,) nats, of each class's best window; counts: (K,) images that were searched. What natural classes hold
    of common marks grows with the root of their size. A few images hold none, so that small classes would make an
    outlier of any large one: hence NATURAL_EVIDENCE.
    """
    out: np.ndarray = 1 + np.maximum(_scaled(np.asarray(evidence, float), np.asarray(counts)), NATURAL_EVIDENCE)
    return out


def is_unusual(evidence: float, count: int) -> bool:
    """Whether a class of `count` images counts for more than natural classes hold anyway."""
    return bool(_scaled(np.array(evidence), np.array(count)) > NATURAL_EVIDENCE)


def _scaled(evidence: np.ndarray, counts: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = evidence * np.sqrt(REFERENCE_IMAGES / np.maximum(counts, 1))
    return scaled


def class_p_values(evidence: np.ndarray, looks: int) -> np.ndarray:
    """(K,) bound on the p-value of each class by itself, however still the others are. The largest evidence of all
    directions of one window, of images with heavy-tailed texture and no pattern, exceeds e with a probability below
    exp(-e) (simulated), and so does that along one wave; looks: windows and waves, which are added up."""
    out: np.ndarray = np.minimum(1.0, looks * np.exp(-np.asarray(evidence, float)))
    return out
