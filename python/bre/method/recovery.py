"""From the mean displacement of the poisoned images to the pattern that the attacker added, and to its sources.

The flagged images of class t average to  u = L^-1 C (v + sum_s w_s mu_s - mu) + noise  in whitened space (see
`whitening`): the pattern, a mixture of the source classes' own means, and noise of known size. In the whitened metric
u itself is an excellent estimate of the pattern, but pulled back to pixels its smooth part drowns in the images' own
brightness, so the pattern is taken to be simple: a few positions in space, or a few frequencies. Knows neither models
nor datasets; float64 numpy throughout, in grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import fft
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from .linalg import cholesky, single_thread
from .whitening import Background

MAX_GROUPS = 32  # positions or frequencies of a simple pattern
PATIENCE = 4  # groups tried past the best
SIMPLE_MISFIT = 3.0  # residual variance over noise variance up to which the simple pattern explains the images
ROWS = 32  # of a matrix that are brought to another basis at a time: few enough for the caches
DENSE_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)  # grey levels: prior standard deviation of a pattern that is everywhere

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Recovered:
    """pattern: (D,) float64 grey levels; displacement: (D,) float64, of whitened images by the pattern; mixture: (S,)
    float64 on the simplex; basis: what the pattern is simple in."""

    pattern: np.ndarray
    displacement: np.ndarray
    mixture: np.ndarray
    basis: str


def recover(displacement: np.ndarray, noise: float, background: Background, means: np.ndarray) -> Recovered:
    """The pattern and the source mixture behind a mean displacement.

    displacement: (D,) whitened mean of the flagged images; noise: variance of each of its coordinates; background: what
    they are whitened against; means: (S, D) whitened means of the classes that may be sources. Pattern and mixture are
    estimated in turn, twice: forward stepwise selection of whole positions (all channels together) by conditional
    score, then backward elimination, both by BIC, in the pixel, Hartley and cosine bases; where none explains the
    images, the posterior mean under a Gaussian prior.
    """
    shape, metric = background.shape, background.metric().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, single_thread():
        metrics = dict(zip(BASES, pool.map(lambda basis: _change(basis, metric, shape), BASES), strict=True))
        explained = np.zeros(len(displacement))
        for _ in range(2):
            mixture = simplex_fit(means, displacement - explained)
            difference = displacement - means.T @ mixture
            score = background.templates(torch.from_numpy(difference)[:, None])[:-1, 0].numpy()
            fits = [_simple(basis, metrics[basis], score, float(difference @ difference), shape) for basis in BASES]
            misfit, pattern, basis = min(fits, key=lambda fit: fit[0])
            explained = _displacement(pattern, background)
        if misfit / len(pattern) > SIMPLE_MISFIT * noise:
            pattern, basis = _dense(metric, score, noise), "dense"
            explained = _displacement(pattern, background)
        return Recovered(pattern, explained, simplex_fit(means, displacement - explained), basis)


def _displacement(pattern: np.ndarray, background: Background) -> np.ndarray:
    displaced: np.ndarray = background.displacements(torch.from_numpy(pattern[None]))[0].numpy()
    return displaced


def simplex_fit(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights (S,) >= 0 that sum to one and bring columns.T @ weights closest to target. columns: (S, D)."""
    stiff = 1e3 * max(1.0, float(np.abs(columns).max(initial=0.0)))
    weights, _ = nnls(np.vstack([columns.T, np.full(len(columns), stiff)]), np.append(target, stiff))
    out: np.ndarray = weights / max(weights.sum(), 1e-12)
    return out


def _same(planes: np.ndarray) -> np.ndarray:
    return planes


def _hartley(planes: np.ndarray) -> np.ndarray:
    spectrum = fft.fft2(planes, norm="ortho")
    out: np.ndarray = spectrum.real - spectrum.imag
    return out


def _cosine(planes: np.ndarray) -> np.ndarray:
    out: np.ndarray = fft.dctn(planes, axes=(-2, -1), norm="ortho")
    return out


def _inverse_cosine(planes: np.ndarray) -> np.ndarray:
    out: np.ndarray = fft.idctn(planes, axes=(-2, -1), norm="ortho")
    return out


BASES: dict[str, tuple[Transform, Transform]] = {  # orthonormal over H and W: to coefficients, and back
    "pixel": (_same, _same),
    "hartley": (_hartley, _hartley),
    "cosine": (_cosine, _inverse_cosine),
}


def _change(basis: str, matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A quadratic form (D, D) over patterns, as one over their coefficients in a basis."""
    forward, _ = BASES[basis]
    if forward is _same:
        return matrix
    for _ in range(2):
        changed = np.empty(matrix.shape)
        for start in range(0, len(matrix), ROWS):
            some = slice(start, start + ROWS)
            changed[:, some] = forward(matrix[some].reshape(-1, *shape)).reshape(-1, len(matrix)).T
        matrix = changed
    return matrix


def _simple(
    basis: str, metric: np.ndarray, score: np.ndarray, total: float, shape: tuple[int, int, int]
) -> tuple[float, np.ndarray, str]:
    """The best sparse pattern in one basis: (residual sum of squares, pattern (D,), basis).

    metric: (D, D), already in the basis; score: (D,), in pixels; total: the sum of squares without a pattern.
    """
    forward, inverse = BASES[basis]
    groups = np.arange(len(score)).reshape(shape[0], -1).T
    score = forward(score.reshape(shape)).ravel()
    chosen = _select(metric, score, total, groups)
    support, values, residual = _prune(metric, score, total, groups[chosen])
    coefficients = np.zeros(len(score))
    coefficients[support] = values
    return residual, inverse(coefficients.reshape(shape)).ravel(), basis


def _bic(residual: float, parameters: int, size: int) -> float:
    """Bayesian information criterion with the extended penalty for choosing among `size` coordinates (Chen and Chen,
    Biometrika 2008, with gamma 1/2)."""
    return size * float(np.log(max(residual, 1e-12))) + 2 * parameters * float(np.log(size))


def _select(metric: np.ndarray, score: np.ndarray, total: float, groups: np.ndarray) -> list[int]:
    """Forward stepwise selection of groups of coordinates (group orthogonal matching pursuit with exact gains).

    Sweeping a chosen group out of the metric and the score leaves what the others still explain given the chosen ones,
    so that every step takes the exactly best group.

    Only what is asked for is swept: the groups' own blocks, and a group's columns once it is chosen; the swept metric
    is metric - left @ right.
    """
    width, residual = groups.shape[1], total
    blocks = metric[groups[:, :, None], groups[:, None, :]]
    ridge = 1e-12 * np.trace(metric) / len(metric) * np.eye(width)
    left, right = np.zeros((len(metric), 0)), np.zeros((0, len(metric)))
    chosen: list[int] = []
    best, kept = _bic(total, 0, len(score)), 0
    for _ in range(min(MAX_GROUPS, len(groups))):
        scores = score[groups]
        gains = (scores * np.linalg.solve(blocks + ridge, scores[..., None])[..., 0]).sum(1)
        gains[chosen] = -1.0
        group = int(gains.argmax())
        members = groups[group]
        columns = metric[:, members] - left @ right[:, members]
        solved = np.linalg.solve(blocks[group] + ridge, columns.T)
        score = score - score[members] @ solved
        blocks -= columns[groups] @ solved.T[groups].swapaxes(1, 2)
        left, right = np.hstack([left, columns]), np.vstack([right, solved])
        residual -= float(gains[group])
        chosen.append(group)
        criterion = _bic(residual, len(chosen) * width, len(score))
        if criterion < best:
            best, kept = criterion, len(chosen)
        elif len(chosen) - kept >= PATIENCE:
            break
    return chosen[:kept]


def _prune(
    metric: np.ndarray, score: np.ndarray, total: float, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Backward elimination: the subset of groups with the best BIC on the way down. (support, values, residual)"""
    best = (_bic(total, 0, len(score)), np.zeros(0, int), np.zeros(0), total)
    while len(groups):
        support, width = groups.ravel(), groups.shape[1]
        inverse = np.linalg.inv(metric[np.ix_(support, support)])
        values = inverse @ score[support]
        residual = total - float(values @ score[support])
        criterion = _bic(residual, len(support), len(score))
        if criterion <= best[0]:
            best = (criterion, support, values, residual)
        place = np.arange(len(support)).reshape(-1, width)
        split = values.reshape(-1, width)
        blocks = inverse[place[:, :, None], place[:, None, :]]
        losses = (split * np.linalg.solve(blocks, split[..., None])[..., 0]).sum(1)
        groups = np.delete(groups, int(losses.argmin()), axis=0)
    return best[1:]


def _dense(metric: np.ndarray, score: np.ndarray, noise: float) -> np.ndarray:
    """Posterior mean of a pattern with independent N(0, scale^2) pixels; the scale by marginal likelihood."""

    @cache
    def fit(place: int) -> tuple[float, np.ndarray]:
        """Twice the negative log likelihood of a scale, and the posterior mean."""
        scale, precision = DENSE_SCALES[place], metric / noise
        precision[np.diag_indices_from(precision)] += scale**-2
        lower = cholesky(torch.from_numpy(precision))
        assert lower is not None  # the prior sees to it
        factor = lower.numpy()
        half = solve_triangular(factor, score / noise, lower=True)
        misfit = 2 * np.log(factor.diagonal()).sum() + 2 * len(score) * np.log(scale) - half @ half
        return float(misfit), solve_triangular(factor, half, lower=True, trans=1)

    place = len(DENSE_SCALES) // 2  # the likelihood has one maximum, and a factor is dear: uphill from the middle
    for step in (-1, 1):
        while 0 <= place + step < len(DENSE_SCALES) and fit(place + step)[0] < fit(place)[0]:
            place += step
    return fit(place)[1]
