"""What values of labelled images vary within their classes, and what the classes differ by: a scatter a class, which
gives the whitening by all classes but one, and the discriminants of all classes but one.

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
    """means: by class (d,); scatters: by class (d, d); counts: by class, how many images it is of; total: the sum of
    the scatters."""

    means: dict[int, np.ndarray]
    scatters: dict[int, torch.Tensor]
    counts: dict[int, int]
    total: torch.Tensor

    @classmethod
    def of(cls, values: np.ndarray, labels: np.ndarray) -> ClassSpread:
        """values: (n, d); labels: (n,)."""
        groups = {label: values[labels == label] for label in np.unique(labels).tolist()}
        scatters = {label: modes.scatter(group) for label, group in groups.items()}
        return cls(
            {label: group.mean(0, dtype=np.float64) for label, group in groups.items()},
            scatters,
            {label: len(group) for label, group in groups.items()},
            torch.stack(list(scatters.values())).sum(0),
        )

    def without(self, label: int) -> modes.Whitening:
        """By all classes but one."""
        return modes.Whitening.of(self.total - self.scatters[label], self._freedom(label))

    def variance(self, label: int, values: np.ndarray) -> Variance | None:
        """Of values (n, d), along Fisher's discriminants of all classes but `label`; None where those do not tell the
        classes apart, or there are no two of them, or no two values."""
        others = [mean for other, mean in self.means.items() if other != label]
        if len(others) < 2 or len(values) < 2:
            return None
        means, factor = np.stack(others), self.without(label).factor
        centred = torch.from_numpy((means - means.mean(0)).T)
        directions, _, _ = torch.linalg.svd(
            torch.linalg.solve_triangular(factor, centred, upper=False), full_matrices=False
        )
        directions = directions[:, : len(others) - 1]
        along = torch.linalg.solve_triangular(factor.T, directions, upper=True)
        scatter = (self.total - self.scatters[label]) @ along
        within = float((along * scatter).sum()) / (self._freedom(label) * along.shape[1])
        between = float(np.square((means - means.mean(0)) @ along.numpy()).mean())
        if between < TELLS_CLASSES * within:
            return None
        return Variance(float((values.astype(np.float64) @ along.numpy()).var(0).mean()), within, between)

    def distances(self, label: int, values: np.ndarray) -> np.ndarray:
        """Squared distances, but for a constant each, of values (n, d) to the means of all classes but `label`,
        float64 (n, K - 1), in the order of `means`, all whitened; what all of the values have in common is taken away,
        so that their mean is that of the classes."""
        whitening = self.without(label)
        means = whitening.whiten(np.stack([mean for other, mean in self.means.items() if other != label]))
        whitened = whitening.whiten(values)
        whitened += means.mean(0) - whitened.mean(0)
        out: np.ndarray = np.square(means).sum(1) - 2 * whitened @ means.T
        return out

    def _freedom(self, label: int) -> int:
        return max(1, sum(self.counts.values()) - self.counts[label] - (len(self.counts) - 1))


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
