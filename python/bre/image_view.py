"""The data's view of a dataset: which class hides a common pattern, which of its images carry it, what it looks like.

The meeting point of an ImageSet with `spectral` and `pattern`: one pass over all images for the moments, one over each
class for its search, one more over a suspected class. Memory: O(D^2) and MAX_SEARCH images of one class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from . import ops, pattern, spectral
from .errors import InputError
from .inputs import ImageSet
from .report import Histogram

MIN_IMAGES = 50  # of a class, for its two halves to say anything
MAX_SEARCH = 4096  # images of a class that are searched; all of a suspected class are scored
MAX_VALUES = 12288  # D: the covariance takes 8 D^2 bytes, three times over
MAX_SUMS = 2**29  # K x D: the classes' sums take 8 bytes each
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Carriers:
    """The images of one class that carry its planted pattern, and the pattern.

    indices: int64 (n,), dataset order; scores: float32 (n,), log odds; pattern: float32 (C, H, W), pixel units;
    sources: classes by their share among the carriers, largest first, with the shares; histogram: of all the class's
    images and some of the others' along the pattern's direction, in standard deviations; None where nothing is flagged.
    """

    indices: np.ndarray
    scores: np.ndarray
    pattern: np.ndarray
    sources: tuple[tuple[int, float], ...]
    histogram: Histogram | None


def check_size(images: ImageSet) -> None:
    """Raises InputError where D > MAX_VALUES, or where labels are too large for tables over classes."""
    size, classes = int(np.prod(images.image_shape)), len(images.class_names)
    if size > MAX_VALUES:
        raise InputError(
            f"images of at most {MAX_VALUES} values (3 x 64 x 64) can be screened as yet; "
            f"these have {size} ({' x '.join(map(str, images.image_shape))}): resize them first"
        )
    if classes * size > MAX_SUMS:
        raise InputError(
            f"labels up to {classes - 1} are too many for images of {size} values: number the classes from 0 on"
        )


def evenly(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the indices (n,), spread evenly over them."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(np.int64)]


class ImageView:
    """statistics: float64 (K,), how much stands for a pattern that some images of each class share: the evidence of a
    second mode times its distance (`spectral.Cluster.statistic`); NaN where a class has fewer than MIN_IMAGES different
    photographs. chances: float64 (K,), bound on the p-value of each class by itself. The images must have passed
    `check_size`.
    """

    def __init__(
        self, images: ImageSet, *, seed: int, backend: str, progress: Callable[[str, float], None]
    ):
        classes = len(images.class_names)
        self.images, self.backend = images, backend
        everything = np.arange(len(images))
        self._moments = self._stream(everything, images.labels, lambda fraction: progress("reading images", fraction))
        self.statistics, self.chances = np.full(classes, np.nan), np.ones(classes)
        self._found: dict[int, tuple[spectral.Cluster, np.ndarray]] = {}
        for label in range(classes):
            progress("searching classes", label / classes)
            members = np.flatnonzero(images.labels == label)
            if len(members) < MIN_IMAGES:
                continue
            searched = members
            if len(members) > MAX_SEARCH:
                generator = np.random.default_rng((seed, label))
                searched = np.sort(generator.choice(members, MAX_SEARCH, replace=False))
            block = images.read(searched)
            different = spectral.distinct(block)
            if different.sum() < MIN_IMAGES:
                continue
            cluster = spectral.search(self._background(members).whiten(block[different]))
            self.statistics[label] = spectral.CHANCE
            if cluster is not None:
                self.statistics[label], self.chances[label] = cluster.statistic, cluster.mode.p_value
                self._found[label] = cluster, searched[different][cluster.members.numpy()]
        progress("searching classes", 1.0)

    def carriers(self, label: int) -> Carriers | None:
        """The images of a class that carry what its densest cluster shares; None if there is none."""
        if label not in self._found:
            return None
        cluster, inside = self._found[label]
        members = np.flatnonzero(self.images.labels == label)
        background = self._background(members)
        along, squared = self._along(members, inside, background, cluster)
        log_odds = spectral.log_odds(along, squared, cluster).numpy()
        flagged = log_odds > 0
        recovered, others = self._recover(background, cluster.displacement, cluster.noise / cluster.count, label)
        sources = sorted(zip(others, recovered.mixture.tolist(), strict=True), key=lambda pair: -pair[1])
        return Carriers(
            members[flagged],
            log_odds[flagged].astype(np.float32),
            (recovered.pattern / 255).astype(np.float32).reshape(self.images.image_shape),
            tuple(sources),
            self._histogram(label, along.numpy(), flagged, background, cluster) if flagged.any() else None,
        )

    def _along(
        self, indices: np.ndarray, inside: np.ndarray, background: spectral.Background, cluster: spectral.Cluster
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of images along a cluster's direction and the mean square of each, float32 (n,) both.

        inside: which images, of the dataset, are the cluster's own.
        """
        scores, squared = [], []
        for block in np.array_split(indices, -(-len(indices) // BLOCK)):
            whitened = background.whiten(self.images.read(block))
            scores.append(spectral.scores(whitened, cluster, torch.from_numpy(np.isin(block, inside))))
            squared.append(whitened.square().mean(1))
        return torch.cat(scores), torch.cat(squared)

    def _histogram(
        self, label: int, along: np.ndarray, flagged: np.ndarray, background: spectral.Background,
        cluster: spectral.Cluster,
    ) -> Histogram:  # fmt: skip
        """The class's scores beside those of other classes' images."""
        others = evenly(np.flatnonzero(self.images.labels != label), MAX_SEARCH)
        scores, _ = self._along(others, np.zeros(0, np.int64), background, cluster)
        return Histogram.of(along, scores.numpy(), cut=float(along[flagged].min()))

    def pattern_of(self, indices: np.ndarray, label: int) -> np.ndarray | None:
        """The simple pattern that some images of a class share: float32 (C, H, W), pixel units; None if none is."""
        background = self._background(np.flatnonzero(self.images.labels == label))
        total, squared = 0.0, 0.0
        for block in np.array_split(indices, -(-len(indices) // BLOCK)):
            whitened = background.whiten(self.images.read(block))
            total, squared = total + whitened.sum(0), squared + float(whitened.square().mean(1).double().sum())
        recovered, _ = self._recover(background, total / len(indices), squared / len(indices) ** 2, label)
        if recovered.basis == "dense":
            return None
        return (recovered.pattern / 255).astype(np.float32).reshape(self.images.image_shape)

    def _recover(
        self, background: spectral.Background, displacement: torch.Tensor, noise: float, label: int
    ) -> tuple[pattern.Recovered, list[int]]:
        """The pattern behind a mean displacement, and the classes that its mixture speaks of."""
        count = self._moments.count
        others = [k for k in range(len(count)) if k != label and count[k] >= MIN_IMAGES]
        means = self._moments.sum[others].double() / count[others, None]
        unwhitened = background.unwhitened()
        whitened = unwhitened @ means.T - (unwhitened @ background.mean)[:, None]
        recovered = pattern.recover(
            displacement.double().numpy(), noise, unwhitened.numpy(), whitened.T.numpy(), self.images.image_shape
        )  # fmt: skip
        return recovered, others

    def _background(self, members: np.ndarray) -> spectral.Background:
        """Of the images that are not `members`."""
        own = self._stream(members, np.zeros(len(members), np.int64))
        return spectral.background(self._moments, own, self.images.image_shape)

    def _stream(
        self, indices: np.ndarray, labels: np.ndarray, report: Callable[[float], None] = lambda fraction: None
    ) -> ops.Moments:
        """Moments of some images under the given labels, block by block."""
        classes = int(labels.max()) + 1
        total = ops.Moments.zeros(classes, int(np.prod(self.images.image_shape)))
        for start in range(0, len(indices), BLOCK):
            block = slice(start, start + BLOCK)
            ops.moments(
                torch.from_numpy(self.images.read(indices[block])), torch.tensor(labels[block]), classes=classes,
                out=total, backend=self.backend,
            )  # fmt: skip
            report(min(1.0, (start + BLOCK) / len(indices)))
        return total
