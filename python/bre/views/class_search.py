"""Search every class of a set for a pattern that some of its images share, several classes in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from .. import ops
from ..method import clusters, near_duplicates, whitening
from .passes import Passes
from .scheduler import Workers
from .streams import stream

MIN_IMAGES = 50  # of a class, for its two halves to say anything
MAX_SEARCH = 4096  # images of a class that are searched; all of a suspected class are scored
SMALL_CLASS = 0.75  # images over D up to which taking a class out of all images is quicker than a factor of its own
LIKE_OTHERS = 0.1  # how far a class's number of others may be from the usual one, which the rounding term supposes


@dataclass(frozen=True, eq=False)
class Found:
    """The best cluster of a class. members: int64 (n,), images of the dataset that are in it."""

    cluster: clusters.Cluster
    members: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassSearch:
    """everything: moments of all images, by class; seed: of the sample of a class that is too large."""

    passes: Passes
    everything: ops.Moments
    seed: int

    @cached_property
    def large(self) -> list[int]:
        """Classes with images enough to compare."""
        labels: list[int] = np.flatnonzero(self.everything.count.numpy() >= MIN_IMAGES).tolist()
        return labels

    @cached_property
    def common(self) -> whitening.Background:
        """All images, as if they were as many as are not of a class in the middle."""
        return whitening.common_background(self.everything, self._usual_others, self.passes.images.image_shape)

    @property
    def worker_memory(self) -> int:
        """Bytes that the search of one class holds: two (D, D) float64 matrices, or whitened images and a copy."""
        size, largest = self.passes.size, int(self.everything.count.max())
        return 8 * size * largest if self._small[self.large].all() else 16 * size**2

    def run(self, workers: Workers, report: Callable[[float], None]) -> Iterator[tuple[int, int, Found | None]]:
        """(label, number of images without near duplicates, best cluster), in order, of the classes large enough."""
        tasks = ((label, self._task(label)) for label in self.large)
        for label, (distinct, found) in workers.in_order(tasks, lambda number: report(number / len(self.large))):
            yield label, distinct, found

    def _task(self, label: int) -> Callable[[], tuple[int, Found | None]]:
        """The search of a class, its images read."""
        members = np.flatnonzero(self.passes.images.labels == label)
        searched, own = members, None
        if len(members) > MAX_SEARCH:
            generator = stream(self.seed, f"images of class {label}")
            searched = np.sort(generator.choice(members, MAX_SEARCH, replace=False))
            own, block = self.passes.moments(members, np.zeros(len(members), np.int64), searched)
        else:
            block = self.passes.images.read(members)
        return partial(self._search, searched, block, own, self.common if self._small[label] else None)

    @cached_property
    def _small(self) -> np.ndarray:
        """(K,) bool: classes that are taken out of all images, rather than given a factor of their own."""
        count, usual = self.everything.count.numpy(), self._usual_others
        like_others = abs(count.sum() - count - usual) <= LIKE_OTHERS * usual
        small: np.ndarray = (count <= min(MAX_SEARCH, SMALL_CLASS * self.passes.size)) & like_others
        return small

    @cached_property
    def _usual_others(self) -> int:
        """How many images are not of a class, for the class in the middle."""
        count = self.everything.count.numpy()
        return int(np.median((count.sum() - count)[self.large]))

    def _search(
        self,
        members: np.ndarray,
        block: np.ndarray,
        own: ops.Moments | None,
        common: whitening.Background | None,
    ) -> tuple[int, Found | None]:
        """How many images of a class are no near duplicates, and the best cluster of these.

        members: int64 (n,), the images searched; block: uint8 (n, C, H, W), themselves; own: moments of the class, None
        where `block` is all of it; common: the common background, where the class may be taken out of it.
        """
        kept = near_duplicates.distinct(block)
        if kept.sum() < MIN_IMAGES:
            return int(kept.sum()), None
        products = None
        if common is not None:
            others = int(self.everything.count.sum()) - len(block)
            products = whitening.products(common.whiten(block), self.passes.backend)
            products = whitening.without_own(products, others, common.count)
            if products is not None:
                products = products[kept][:, kept]
        if products is None:
            if own is None:
                own = ops.Moments.zeros(1, self.passes.size)
                self.passes.add(block, np.zeros(len(block), np.int64), own)
            background = whitening.background(self.everything, own, self.passes.images.image_shape)
            products = whitening.products(background.whiten(block[kept]), self.passes.backend)
        cluster = clusters.search(products, self.passes.size)
        found = None if cluster is None else Found(cluster, members[kept][cluster.members.numpy()])
        return int(kept.sum()), found
