"""What values of labelled images vary within their classes, and what the classes differ by: the whitening by all
classes but one, and the discriminants of all classes but one.

Arrays only: floats (n, d), images by values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from . import modes

# ratio; of the variance between classes to that within them, along their discriminants, from which on a layer tells
# classes apart; source: chosen, far above what class means of a hundred images differ by at random
TELLS_CLASSES = 0.1


@dataclass(frozen=True, eq=False)
class Variance:
    """Of images, along the discriminants of other classes. own: what they vary; within: what one class varies; between:
    what all classes vary beyond that."""

    own: float
    within: float
    between: float


@dataclass(frozen=True, eq=False)
class ClassSpread:
    """values: float32 (n, d); labels: (n,); means: by class (d,); total: (d, d), the scatters within classes summed. A
    scatter for each class would take K d^2 numbers."""

    values: np.ndarray
    labels: np.ndarray
    means: dict[int, np.ndarray]
    total: torch.Tensor

    @classmethod
    def of(cls, values: np.ndarray, labels: np.ndarray) -> ClassSpread:
        """values: (n, d); labels: (n,)."""
        means, total = {}, torch.zeros(values.shape[1], values.shape[1], dtype=torch.float64, device="cpu")
        for label in np.unique(labels).tolist():
            group = values[labels == label]
            means[label] = group.mean(0, dtype=np.float64)
            total += modes.scatter(group)
        return cls(values, labels, means, total)

    def without(self, label: int) -> OtherClasses:
        """All classes but one."""
        others = tuple(other for other in self.means if other != label)
        means = np.stack([self.means[other] for other in others]) if others else np.zeros((0, len(self.total)))
        own = self.labels == label
        scatter = self.total - modes.scatter(self.values[own])
        freedom = max(1, int((~own).sum()) - len(others))
        return OtherClasses(others, means, scatter, freedom, modes.Whitening.of(scatter, freedom))


@dataclass(frozen=True, eq=False)
class OtherClasses:
    """All classes but one. labels: theirs; means: float64 (K - 1, d); scatter: (d, d), within them; freedom: degrees of
    freedom of that; whitening: by it."""

    labels: tuple[int, ...]
    means: np.ndarray
    scatter: torch.Tensor
    freedom: int
    whitening: modes.Whitening

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """values (n, d) -> float64 (n, d)."""
        return self.whitening.whiten(values)

    def variance(self, values: np.ndarray) -> Variance | None:
        """Of values (n, d), along Fisher's discriminants of these classes; None where those do not tell the classes
        apart, or there are no two of them, or no two values."""
        if len(self.labels) < 2 or len(values) < 2:
            return None
        centred, factor = self.means - self.means.mean(0), self.whitening.factor
        directions, _, _ = torch.linalg.svd(
            torch.linalg.solve_triangular(factor, torch.from_numpy(centred.T), upper=False), full_matrices=False
        )
        directions = directions[:, : len(self.labels) - 1]
        along = torch.linalg.solve_triangular(factor.T, directions, upper=True)
        within = float((along * (self.scatter @ along)).sum()) / (self.freedom * along.shape[1])
        between = float(np.square(centred @ along.numpy()).mean())
        if between < TELLS_CLASSES * within:
            return None
        return Variance(float((values.astype(np.float64) @ along.numpy()).var(0).mean()), within, between)

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Squared distances, but for a constant each, of values (n, d) to the classes' means, float64 (n, K - 1), all
        whitened; what all of the values have in common is taken away, so that their mean is that of the classes."""
        means, whitened = self.whiten(self.means), self.whiten(values)
        whitened += means.mean(0) - whitened.mean(0)
        out: np.ndarray = np.square(means).sum(1) - 2 * whitened @ means.T
        return out


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """How often two judges agree, beyond what their shares give by chance (Cohen, Educational and Psychological
    Measurement 1960): at most 1. first, second: int64 (n,), what each chose. 0 where chance says all."""
    kinds = int(max(first.max(), second.max())) + 1
    shares = [np.bincount(chosen, minlength=kinds) / len(chosen) for chosen in (first, second)]
    chance = float(shares[0] @ shares[1])
    return (float((first == second).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def between_share(variances: list[Variance]) -> float:
    """How much of what other classes differ by some images differ by among themselves, over several layers: near 0 for
    images of one thing, 1/2 for those of two other classes in equal parts, 1 for those of all other classes. What all
    of the images have in common, as a trigger, does not count. 0 without a layer that tells."""
    between = sum(each.between for each in variances)
    return sum(each.own - each.within for each in variances) / between if between else 0.0
