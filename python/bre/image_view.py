"""The data's view of a dataset: which class hides a common pattern, which of its images carry it, what it looks like.

The meeting point of an ImageSet with `spectral` and `pattern`: one pass over all images for the moments, one over each
class for its search, three more over a suspected class. Classes are searched side by side, each by one thread, so that
the answers are the same at any number of threads; images are read by the caller's thread alone, since datasets need not
be safe to share. Memory: O(D^2) and MAX_SEARCH images per worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from . import ops, pattern, spectral
from .errors import InputError
from .inputs import ImageSet
from .report import Histogram

MIN_IMAGES = 50  # of a class, for its two halves to say anything
MAX_SEARCH = 4096  # images of a class that are searched; all of a suspected class are scored
MAX_VALUES = 12288  # D: the covariance takes 8 D^2 bytes, five times over
MAX_SUMS = 2**29  # K x D: the classes' sums take 8 bytes each
BLOCK = 4096
MAX_WORKERS = 4
WORKERS_MEMORY = 2**30  # bytes of (D, D) float64 matrices that all the workers together may hold, two each
SMALL_CLASS = 0.75  # images over D up to which taking a class out of all images is quicker than a factor of its own
LIKE_OTHERS = 0.1  # how far a class's number of others may be from the usual one, which the rounding term supposes


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
        for label, searched, cluster in self._search_all(seed, progress):
            if len(searched) < MIN_IMAGES:
                continue
            self.statistics[label] = spectral.CHANCE
            if cluster is not None:
                self.statistics[label], self.chances[label] = cluster.statistic, cluster.mode.p_value
                self._found[label] = cluster, searched[cluster.members.numpy()]
        progress("searching classes", 1.0)

    def _search_all(
        self, seed: int, progress: Callable[[str, float], None]
    ) -> Iterator[tuple[int, np.ndarray, spectral.Cluster | None]]:
        """(label, its different photographs that were searched, best cluster), in order, of classes large enough."""
        count = self._moments.count.numpy()
        large = np.flatnonzero(count >= MIN_IMAGES)
        size, others = self._moments.sum.shape[1], count.sum() - count
        usual = int(np.median(others[large])) if len(large) else 0
        small = (count <= min(MAX_SEARCH, SMALL_CLASS * size)) & (abs(others - usual) <= LIKE_OTHERS * usual)
        everything = None
        if small[large].any():
            everything = spectral.common_background(self._moments, usual, self.images.image_shape)
        waiting: deque[tuple[int, np.ndarray, Future[tuple[np.ndarray, spectral.Cluster | None]]]] = deque()

        def oldest() -> tuple[int, np.ndarray, spectral.Cluster | None]:
            label, searched, future = waiting.popleft()
            different, cluster = future.result()
            return label, searched[different], cluster

        with _workers(size) as (pool, workers):
            for place, label in enumerate(large.tolist()):
                progress("searching classes", place / len(large))
                members = np.flatnonzero(self.images.labels == label)
                searched, own = members, None
                if len(members) > MAX_SEARCH:
                    generator = np.random.default_rng((seed, label))
                    searched = np.sort(generator.choice(members, MAX_SEARCH, replace=False))
                    block, own = self._read_and_sum(members, searched)
                else:
                    block = self.images.read(members)
                waiting.append((label, searched, pool.submit(
                    self._search, block, own, everything if small[label] else None
                )))  # fmt: skip
                if len(waiting) > workers:
                    yield oldest()
            while waiting:
                yield oldest()

    def _search(
        self, block: np.ndarray, own: ops.Moments | None, everything: spectral.Background | None
    ) -> tuple[np.ndarray, spectral.Cluster | None]:
        """Which images of a class are different photographs, (n,) bool, and the best cluster of these.

        block: the images searched; own: moments of the class, None where `block` is all of it; everything: the common
        background, where the class may be taken out of it.
        """
        different = spectral.distinct(block)
        if different.sum() < MIN_IMAGES:
            return different, None
        products, size = None, self._moments.sum.shape[1]
        if everything is not None:
            others = int(self._moments.count.sum()) - len(block)
            products = spectral.without_own(spectral.gram(everything.whiten(block)), others, everything.count)
            if products is not None:
                products = products[different][:, different]
        if products is None:
            if own is None:
                own = ops.Moments.zeros(1, size)
                self._add(block, np.zeros(len(block), np.int64), own)
            background = spectral.background(self._moments, own, self.images.image_shape)
            products = spectral.gram(background.whiten(block[different]))
        return different, spectral.search(products, size)

    def carriers(self, label: int) -> Carriers | None:
        """The images of a class that carry what its densest cluster shares; None if there is none."""
        if label not in self._found:
            return None
        cluster, inside = self._found[label]
        members = np.flatnonzero(self.images.labels == label)
        background = self._background(members)
        total, _ = self._total(inside, background)
        along, squared = self._along(members, inside, background, total)
        log_odds = spectral.log_odds(along, squared, cluster).numpy()
        flagged = log_odds > 0
        recovered, others = self._recover(background, total / len(inside), cluster.noise / len(inside), label)
        sources = sorted(zip(others, recovered.mixture.tolist(), strict=True), key=lambda pair: -pair[1])
        return Carriers(
            members[flagged],
            log_odds[flagged].astype(np.float32),
            (recovered.pattern / 255).astype(np.float32).reshape(self.images.image_shape),
            tuple(sources),
            self._histogram(label, along.numpy(), flagged, background.template(total)) if flagged.any() else None,
        )

    def _along(
        self, indices: np.ndarray, inside: np.ndarray, background: spectral.Background, total: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of images along a cluster's direction and the mean square of each, float32 (n,) both.

        inside: which images, of the dataset, are the cluster's own; total: their sum.
        """
        scores, squared = [], []
        for some, block in self._blocks(indices):
            whitened = background.whiten(block)
            scores.append(spectral.scores(whitened, total, torch.from_numpy(np.isin(some, inside))))
            squared.append(whitened.square().mean(1))
        return torch.cat(scores), torch.cat(squared)

    def _total(self, indices: np.ndarray, background: spectral.Background) -> tuple[torch.Tensor, float]:
        """Sum of some whitened images, (D,) float32, and of their mean squared coordinates."""
        total, squared = torch.zeros(self._moments.sum.shape[1]), 0.0
        for _, block in self._blocks(indices):
            whitened = background.whiten(block)
            total, squared = total + whitened.sum(0), squared + float(whitened.square().mean(1).double().sum())
        return total, squared

    def _histogram(self, label: int, along: np.ndarray, flagged: np.ndarray, template: torch.Tensor) -> Histogram:
        """The class's scores beside those of other classes' images."""
        others = evenly(np.flatnonzero(self.images.labels != label), MAX_SEARCH)
        scores = [spectral.filtered(block, template) for _, block in self._blocks(others)]
        return Histogram.of(along, torch.cat(scores).numpy(), cut=float(along[flagged].min()))

    def pattern_of(self, indices: np.ndarray, label: int) -> np.ndarray | None:
        """The simple pattern that some images of a class share: float32 (C, H, W), pixel units; None if none is."""
        background = self._background(np.flatnonzero(self.images.labels == label))
        total, squared = self._total(indices, background)
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
        total = ops.Moments.zeros(int(labels.max()) + 1, int(np.prod(self.images.image_shape)))
        done = 0
        for some, block in self._blocks(indices):
            self._add(block, labels[done : done + len(some)], total)
            done += len(some)
            report(done / len(indices))
        return total

    def _read_and_sum(self, members: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, ops.Moments]:
        """Some of the images of a class, and the moments of all of them: one pass."""
        own, parts = ops.Moments.zeros(1, self._moments.sum.shape[1]), []
        for some, block in self._blocks(members):
            self._add(block, np.zeros(len(some), np.int64), own)
            parts.append(block[np.isin(some, kept)])
        return np.concatenate(parts), own

    def _add(self, block: np.ndarray, labels: np.ndarray, total: ops.Moments) -> None:
        ops.moments(
            torch.from_numpy(block), torch.tensor(labels), classes=len(total.count), out=total, backend=self.backend
        )

    def _blocks(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices and images, BLOCK at a time."""
        for start in range(0, len(indices), BLOCK):
            some = indices[start : start + BLOCK]
            yield some, self.images.read(some)


@contextmanager
def _workers(size: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads of one torch thread each, as many as torch has here and memory allows for images of `size` values."""
    threads = torch.get_num_threads()
    workers = max(1, min(threads, MAX_WORKERS, WORKERS_MEMORY // (16 * size**2)))
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool, workers
    finally:
        torch.set_num_threads(threads)  # of threads that are yet to be made
