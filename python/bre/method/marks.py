"""Marks: what a few images of a class share in one place of the image, though nothing else about them is alike.

A class has natural marks too: the name of a site in the corner of its photographs, the frame of one scanner. Images
that were given the class's label together with the mark differ from these in two ways. Images of other classes nearly
never lie as far along the mark. And away from the mark they look like other classes than their own: whoever plants a
mark takes images of other classes. The second is tested on thumbnails, and says nothing of the first, so its p-value
is that of the mark. Clean-label poison passes for a natural mark here.

Arrays only. Scores are in robust standard deviations of the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor
from torch.nn import functional

from .. import ops
from ..ops.tiles import CELL
from .clusters import MODE_FLOOR, Found
from .codes import Codes
from .levels import Level, Window
from .linalg import single_thread
from .matched_filters import MatchedFilter, strongest
from .robust import median_and_spread
from .stats import MIN_MODE_VALUES

MAX_MARKS = 3  # marks; of a class that are tested, those of most evidence; source: chosen, each takes a pass
# nats; of a mark among its class alone, from which on it is tested: a mark is a mode, a natural trait (yellow and red
# among the cars of natural7, which look like flowers) is the end of a tail; source: chosen, such traits had 2 or 3 in
# the held-out sets of docs/sizes.md, planted marks 7 and more in its cells
MIN_MARK_EVIDENCE = 5.0
# robust standard deviations; of the inner products of a mark's images elsewhere in the image, in the median of their
# pairs, from which on they are alike there too: photographs of one series; source: chosen, planted ones had 0.5 at
# most, natural series 1.2 and more, on imagenette224 at 64 x 64, which is in docs/sizes.md
ALIKE_ELSEWHERE = 1.0
UNRELATED_IMAGES = 64  # images; whose pairs tell how alike images of the class are; source: chosen, 2 016 pairs
# ratio; of the largest to the smallest score of images that carry one mark, at most: what is added is as long in each;
# source: chosen, clipping and texture take up to a third of it
TIGHT = 1.6
SHRUNK_TOGETHER = 256  # images; that become thumbnails at a time; source: chosen, for little memory
# share; of the scores of other classes' images that count as their tail, at least; source: chosen, two hundred of a
# full sample
TAIL = 0.05
THUMBNAIL = 8  # pixels; a side of a thumbnail; source: chosen, the look of a photograph, not its details
FOLDS = 5  # parts; of the images, each scored by what the others say; source: chosen, the usual number
# share; of the mean variance that is added to every feature's; source: chosen, classes may have fewer images than
# features
RIDGE = 0.1


def among(codes: Sequence[Codes], found: Sequence[Found]) -> list[Found]:
    """The marks among the modes of a class, (P,), most evidence first. codes: by level."""
    out: list[Found] = []
    with single_thread():
        for each in found:
            if len(out) == MAX_MARKS or each.evidence < MIN_MARK_EVIDENCE:
                break
            if len(each.members) >= MIN_MODE_VALUES and _unrelated(codes[each.level], each.window, strongest(each)):
                out.append(each)
    return out


def _unrelated(codes: Codes, window: Window, members: np.ndarray) -> bool:
    """Whether images are no more alike than others of the class, away from a window; False where it is all there is."""
    inside = set(codes.inside(window))
    elsewhere = [unit for number, unit in enumerate(codes.units) if number not in inside]
    if not elsewhere:
        return False
    usual = np.linspace(0, len(codes) - 1, min(UNRELATED_IMAGES, len(codes))).astype(np.int64)
    related, between = (_pairs(elsewhere, rows) for rows in (members, usual))
    middle, spread = median_and_spread(between)
    return bool(np.median(related) - middle < ALIKE_ELSEWHERE * max(spread, 1e-9))


def _pairs(units: Sequence[Tensor], rows: np.ndarray) -> np.ndarray:
    """Inner products of all pairs of some images, over some units: int64 (k (k - 1) / 2,)."""
    there, total = torch.from_numpy(rows), np.zeros((len(rows), len(rows)), np.int64)
    for unit in units:
        total += ops.gram(unit[there.to(unit.device)].contiguous()).cpu().numpy()
    pairs: np.ndarray = total[np.triu_indices(len(rows), 1)]
    return pairs


def carriers(mark: MatchedFilter, elsewhere: np.ndarray) -> tuple[float, np.ndarray]:
    """Evidence in nats that a mark is rarer elsewhere, and the images that carry it, int64, counted among those of the
    class. elsewhere: scores (m,) of images of other classes."""
    own = mark.scores.astype(np.float64)
    middle, spread = median_and_spread(own)
    spread = max(spread, 1e-9)
    own = (own - middle) / spread
    evidence, low, high = rarer_elsewhere(own, (elsewhere - np.median(elsewhere)) / spread)
    return evidence, np.flatnonzero((own >= low) & (own <= high))


def rarer_elsewhere(own: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Evidence in nats that of the upper scores of a class, (n,), more lie in one narrow interval than of those
    elsewhere, (m,), with that interval.

    The log likelihood ratio of two binomials, maximised over intervals from one score of the class to at most TIGHT
    times as much (a scan, as in `stats.second_modes`), less the logarithm of the number of scores that an interval may
    start from: of tails of one kind, however heavy, it exceeds e with a probability of 5 exp(-e) at most (simulated).
    Only tails are compared, since natural classes differ in how many images are in theirs.
    """
    floor = min(MODE_FLOOR, float(np.quantile(others, 1 - TAIL))) if len(others) else MODE_FLOOR
    upper, elsewhere = (np.sort(scores[scores > floor]) for scores in (own, others))
    best = 0.0, np.inf, np.inf
    for start, low in enumerate(upper.tolist()):
        ends = np.arange(start + MIN_MODE_VALUES - 1, np.searchsorted(upper, TIGHT * low, "right"))
        if not len(ends):
            continue
        inside = ends - start + 1
        theirs = np.searchsorted(elsewhere, upper[ends], "right") - np.searchsorted(elsewhere, low)
        ratio = _log_likelihood_ratio(inside, len(upper), theirs, len(elsewhere)) - np.log(len(upper))
        place = int(ratio.argmax())
        if ratio[place] > best[0]:
            best = float(ratio[place]), low, float(upper[ends[place]])
    return best


def _log_likelihood_ratio(k: np.ndarray, n: int, other_k: np.ndarray, other_n: int) -> np.ndarray:
    """Of two shares against one that they have in common, where the first is larger; 0 elsewhere."""

    def fit(k: np.ndarray, n: int) -> np.ndarray:
        likelihood: np.ndarray = special.xlogy(k, k / max(n, 1)) + special.xlogy(n - k, (n - k) / max(n, 1))
        return likelihood

    ratio = fit(k, n) + fit(other_k, other_n) - fit(k + other_k, n + other_n)
    return np.where(k * other_n > other_k * n, ratio, 0.0)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """uint8 (n, C, H, W) -> float32 (n, 2 C, t, t): mean and standard deviation of the parts of each image."""
    out = []
    for start in range(0, len(images), SHRUNK_TOGETHER):
        block = torch.from_numpy(images[start : start + SHRUNK_TOGETHER]).float()
        size = min(THUMBNAIL, block.shape[2]), min(THUMBNAIL, block.shape[3])
        mean, square = (functional.adaptive_avg_pool2d(each, size) for each in (block, block.square()))
        out.append(torch.cat([mean, (square - mean.square()).clamp_min(0).sqrt()], 1))
    return torch.cat(out).numpy()


def foreign(own: np.ndarray, others: np.ndarray, members: np.ndarray, level: Level, window: Window) -> float:
    """The p-value of some images' looking as little like their class by chance, away from a window of a level.

    own, others: thumbnails (n, F, t, t), (m, F, t, t) of the class and of other classes; members: bool (n,). Fisher's
    linear discriminant between the class and others is fitted without the members and without what it scores; their
    scores are compared with those of the class's other images (Mann and Whitney, The Annals of Mathematical Statistics
    1947).
    """
    kept = _away_from(own.shape[2:], level, window)
    if not members.any() or members.all() or len(others) < FOLDS or not kept.any():
        return 1.0
    features = np.concatenate([own, others])[:, :, kept].reshape(len(own) + len(others), -1).astype(np.float64)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    is_own = np.arange(len(features)) < len(own)
    apart = np.concatenate([members, np.zeros(len(others), bool)])
    part = np.where(apart, -1, np.arange(len(features)) % FOLDS)
    likeness = np.zeros(len(features))
    for fold in range(FOLDS):
        fitted = ~apart & (part != fold)
        discriminant = _discriminant(features[fitted], is_own[fitted])
        likeness[part == fold] = features[part == fold] @ discriminant[:-1] + discriminant[-1]
        likeness[apart] += (features[apart] @ discriminant[:-1] + discriminant[-1]) / FOLDS
    test = stats.mannwhitneyu(likeness[apart], likeness[is_own & ~apart], alternative="less", method="asymptotic")
    return float(test.pvalue)


def _away_from(shape: tuple[int, ...], level: Level, window: Window) -> np.ndarray:
    """bool, of a thumbnail's pixels: which do not touch a window."""
    inside = []
    for axis in range(2):
        scale, start = shape[axis] * CELL / level.shape[1 + axis], window[axis]
        places = np.arange(shape[axis])
        inside.append((places + 1 > start * scale) & (places < (start + window[2 + axis]) * scale))
    away: np.ndarray = ~np.outer(*inside)
    return away


def _discriminant(features: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """float64 (F + 1,): weights and offset, both groups counted alike."""
    weight = np.where(is_own, 0.5 / max(is_own.sum(), 1), 0.5 / max((~is_own).sum(), 1))
    mean = weight @ features
    centred = features - mean
    within = (centred * weight[:, None]).T @ centred
    within[np.diag_indices(len(within))] += RIDGE * np.trace(within) / len(within) + 1e-9
    direction = np.linalg.solve(within, (centred * weight[:, None]).T @ (is_own - 0.5))
    return np.append(direction, -mean @ direction)
