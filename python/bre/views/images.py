"""The data's view of a dataset: which class hides a common pattern, which of its images carry it, what it looks like.

The meeting point of an ImageSet with `spectral` and `pattern`: one pass over all images for the moments, one over each
class for its search, three more over a suspected class. Classes are searched side by side, each by one thread, so that
the answers are the same at any number of threads; images are read by the caller's thread alone, since datasets need not
be safe to share. Memory: O(D^2) and MAX_SEARCH images per worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .. import ops
from ..errors import InputError
from ..inputs import ImageSet
from ..method import carriers, clusters, cross_class, linalg, near_duplicates, recovery, whitening

MIN_IMAGES = 50  # of a class, for its two halves to say anything
MAX_SEARCH = 4096  # images of a class that are searched; all of a suspected class are scored
MIN_VALUES = 3  # D: fewer have no directions to compare
MAX_VALUES = 12288  # D: the covariance takes 8 D^2 bytes, five times over
MAX_SUMS = 2**29  # K x D: the classes' sums take 8 bytes each
BLOCK = 4096
NONE = np.zeros(0, np.int64)
MAX_WORKERS = 4
WORKERS_MEMORY = 2**30  # bytes of large matrices that all the workers together may hold
SAMPLE = 16384  # images, of all classes, in which what several classes share is looked for
SAMPLE_DEPTH = 2  # images over D from which on they say more of the background than of themselves
STRANGE = 5.0  # standard deviations that some class's carriers are from its mean towards another's, at least
LEAST_SHARE = 0.1  # of the carriers in the class that has most: a class with fewer is not one that was attacked
SMALL_CLASS = 0.75  # images over D up to which taking a class out of all images is quicker than a factor of its own
LIKE_OTHERS = 0.1  # how far a class's number of others may be from the usual one, which the rounding term supposes


@dataclass(frozen=True, eq=False)
class Carriers:
    """Which images of a class carry its planted pattern, and the pattern.

    members: int64 (n,), the class's images, dataset order; log_odds: float64 (n,), that each carries the pattern;
    along: float32 (n,), how far each lies along it, in standard deviations; beside: float32 (m,), likewise of some
    images of other classes; pattern: float32 (C, H, W), pixel units; sources: classes by their share among the
    carriers, largest first, with the shares.
    """

    members: np.ndarray
    log_odds: np.ndarray
    along: np.ndarray
    beside: np.ndarray
    pattern: np.ndarray
    sources: tuple[tuple[int, float], ...]

    @property
    def flagged(self) -> np.ndarray:
        """(n,) bool."""
        flagged: np.ndarray = self.log_odds > carriers.FLAGGED
        return flagged


@dataclass(frozen=True, eq=False)
class Shared:
    """pattern: float32 (C, H, W), pixel units; along: from indices of images (n,) to how far each lies along it, in
    standard deviations, float32 (n,)."""

    pattern: np.ndarray
    along: Callable[[np.ndarray], np.ndarray]


def check_size(images: ImageSet) -> None:
    """Raises InputError unless MIN_VALUES <= D <= MAX_VALUES, and for labels too large for tables over classes."""
    size, classes = int(np.prod(images.image_shape)), len(images.class_names)
    if size < MIN_VALUES:
        raise InputError(f"images of at least {MIN_VALUES} values can be screened, these have {size}")
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
    second mode times its distance, on the scale of `clusters.Cluster.statistic`; NaN where a class has fewer than
    MIN_IMAGES different photographs. chances: float64 (K,), bound on the p-value of each class by itself. The images
    must have passed `check_size`. spread_p_value: bound on the p-value of what images of several classes share
    (`spread`). notes: what was not looked for, for the report; one sentence each.
    """

    def __init__(self, images: ImageSet, *, seed: int, backend: str, progress: Callable[[str, float], None]):
        classes = len(images.class_names)
        self.images, self.backend = images, backend
        everything = np.arange(len(images))
        sampled = np.random.default_rng((seed, 4)).permutation(everything)[:SAMPLE]
        self._moments, sample = self._stream(
            everything, images.labels, sampled, lambda fraction: progress("reading images", fraction)
        )
        self.statistics, self.chances = np.full(classes, np.nan), np.ones(classes)
        self._found: dict[int, tuple[clusters.Cluster, np.ndarray]] = {}
        self._spread, self._sampled = None, sampled
        size = self._moments.sum.shape[1]
        deep = len(images) >= SAMPLE_DEPTH * size
        self.notes: tuple[str, ...] = ()
        if not deep:
            self.notes = (
                f"patterns in several classes at once were not looked for, since that takes "
                f"{SAMPLE_DEPTH * size} images of this size; these are {len(images)}",
            )
        with _workers(self._worker_memory) as (pool, workers):
            everywhere = None
            if deep:
                everywhere = pool.submit(
                    cross_class.search, self._everything, sample[sampled.argsort().argsort()], self.backend
                )
            for label, searched, cluster in self._search_all(pool, workers, seed, progress):
                if len(searched) < MIN_IMAGES:
                    continue
                self.statistics[label] = 1.0
                if cluster is not None:
                    self.statistics[label], self.chances[label] = cluster.statistic, cluster.mode.p_value
                    self._found[label] = cluster, searched[cluster.members.numpy()]
            if everywhere is not None:
                self._spread = everywhere.result()
        self.spread_p_value = 1.0 if self._spread is None else self._spread.p_value
        progress("searching classes", 1.0)

    def _search_all(
        self, pool: ThreadPoolExecutor, workers: int, seed: int, progress: Callable[[str, float], None]
    ) -> Iterator[tuple[int, np.ndarray, clusters.Cluster | None]]:
        """(label, its different photographs that were searched, best cluster), in order, of classes large enough."""
        waiting: deque[tuple[int, np.ndarray, Future[tuple[np.ndarray, clusters.Cluster | None]]]] = deque()

        def oldest() -> tuple[int, np.ndarray, clusters.Cluster | None]:
            label, searched, future = waiting.popleft()
            different, cluster = future.result()
            return label, searched[different], cluster

        for place, label in enumerate(self._large):
            progress("searching classes", place / len(self._large))
            members = np.flatnonzero(self.images.labels == label)
            searched, own = members, None
            if len(members) > MAX_SEARCH:
                generator = np.random.default_rng((seed, label))
                searched = np.sort(generator.choice(members, MAX_SEARCH, replace=False))
                own, block = self._stream(members, np.zeros(len(members), np.int64), searched)
            else:
                block = self.images.read(members)
            waiting.append(
                (
                    label,
                    searched,
                    pool.submit(self._search, block, own, self._everything if self._small[label] else None),
                )
            )
            if len(waiting) > workers:
                yield oldest()
        while waiting:
            yield oldest()

    @cached_property
    def _small(self) -> np.ndarray:
        """(K,) bool: classes that are taken out of all images, rather than given a factor of their own."""
        count, usual = self._moments.count.numpy(), self._usual_others
        like_others = abs(count.sum() - count - usual) <= LIKE_OTHERS * usual
        small: np.ndarray = (count <= min(MAX_SEARCH, SMALL_CLASS * self._moments.sum.shape[1])) & like_others
        return small

    @property
    def _worker_memory(self) -> int:
        """Bytes that the search of one class holds: two (D, D) float64 matrices, or whitened images and a copy."""
        size, largest = self._moments.sum.shape[1], int(self._moments.count.max())
        return 8 * size * largest if self._small[self._large].all() else 16 * size**2

    @cached_property
    def _usual_others(self) -> int:
        """How many images are not of a class, for the class in the middle."""
        count = self._moments.count.numpy()
        return int(np.median((count.sum() - count)[self._large]))

    @cached_property
    def _everything(self) -> whitening.Background:
        return whitening.common_background(self._moments, self._usual_others, self.images.image_shape)

    def _search(
        self, block: np.ndarray, own: ops.Moments | None, everything: whitening.Background | None
    ) -> tuple[np.ndarray, clusters.Cluster | None]:
        """Which images of a class are different photographs, (n,) bool, and the best cluster of these.

        block: the images searched; own: moments of the class, None where `block` is all of it; everything: the common
        background, where the class may be taken out of it.
        """
        different = near_duplicates.distinct(block)
        if different.sum() < MIN_IMAGES:
            return different, None
        products, size = None, self._moments.sum.shape[1]
        if everything is not None:
            others = int(self._moments.count.sum()) - len(block)
            products = whitening.products(everything.whiten(block), self.backend)
            products = whitening.without_own(products, others, everything.count)
            if products is not None:
                products = products[different][:, different]
        if products is None:
            if own is None:
                own = ops.Moments.zeros(1, size)
                self._add(block, np.zeros(len(block), np.int64), own)
            background = whitening.background(self._moments, own, self.images.image_shape)
            products = whitening.products(background.whiten(block[different]), self.backend)
        return different, clusters.search(products, size)

    def carriers(self, label: int) -> Carriers:
        """The images of a class that carry what its densest cluster shares: of a class that stands out, which it would
        not without a cluster."""
        cluster, inside = self._found[label]
        members = np.flatnonzero(self.images.labels == label)
        background = self._background(members)
        others = [k for k in self._large if k != label]
        total, _ = self._total(inside, background)
        threads = torch.get_num_threads()  # told to the other thread, since it puts back the number that it began with
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            future = pool.submit(self._recover, background, others, total / len(inside), cluster.noise / len(inside))
            along, noise, reach = self._along(members, inside, background, total, cluster, future)
            recovered = future.result()
        elsewhere = evenly(np.flatnonzero(self.images.labels != label), MAX_SEARCH)
        return Carriers(
            members,
            carriers.log_odds(along, noise, reach, cluster.mode.centre),
            along,
            self._filtered(elsewhere, background, total),
            self._in_pixels(recovered),
            _shares(others, recovered.mixture),
        )

    def carriers_everywhere(self, known: Sequence[int] = ()) -> dict[int, Carriers]:
        """By class, the images that carry what images of several classes share, where these look like another class
        than the one they are in. A watermark does not make them: if most classes' carriers are no strangers, none are
        returned. Neither are they if most are in classes that are known to hold a pattern: it is theirs."""
        labels, background = self.images.labels, self._everything
        if self._spread is None or np.isin(labels[self._sampled[self._spread.carriers]], known).mean() > 0.5:
            return {}
        everything = np.arange(len(labels))
        scores = cross_class.standardised(self._filtered(everything, background, self._spread.direction))
        inside = np.flatnonzero(cross_class.carrying(scores, cross_class.second_mode(scores)))
        background = self._background(inside)  # in which the pattern is not damped any more
        total, squared = self._total(inside, background)
        recovered = self._recover(background, self._large, total / len(inside), squared / len(inside) ** 2)
        displacement = torch.from_numpy(recovered.displacement)
        scores, reach = self._filtered_and_reach(everything, background, displacement, recovered.pattern)
        scores = cross_class.standardised(scores)
        mode = cross_class.second_mode(scores)
        if not mode.evidence:
            return {}
        log_odds = carriers.log_odds(scores, np.ones(len(scores)), reach, mode.centre)
        flagged = log_odds > carriers.FLAGGED
        flagged_in = {k: np.flatnonzero((labels == k) & flagged) for k in self._large}
        least = max(cross_class.LEAST, LEAST_SHARE * max(map(len, flagged_in.values())))
        totals = {k: self._total(here, background)[0].double().numpy() for k, here in flagged_in.items()}
        means = self._whitened_means(background, self._large)
        for mean, label in zip(means, self._large, strict=True):  # of the others: an image looks like a mean it is in
            count, carrying = int(self._moments.count[label]), len(flagged_in[label])
            mean += (carrying * mean - totals[label]) / max(count - carrying, 1)
        seen = [k for k in self._large if len(flagged_in[k]) >= least]
        looks = {k: totals[k] / len(flagged_in[k]) - displacement.numpy() for k in seen}
        shares = {k: _shares(self._large, recovery.simplex_fit(means, looks[k])) for k in seen}
        strange = [k for k in seen if shares[k][0][0] != k]
        distances = [
            cross_class.beyond(means, self._large.index(k), looks[k], int(self._moments.count[k]))
            * len(flagged_in[k]) ** 0.5
            for k in strange
        ]
        if len(strange) <= len(seen) / 2 or max(distances) < STRANGE:
            return {}
        found = {}
        for label in strange:
            own = np.flatnonzero(labels == label)
            elsewhere = evenly(np.flatnonzero(labels != label), MAX_SEARCH)
            found[label] = Carriers(
                own,
                log_odds[own],
                scores[own],
                scores[elsewhere],
                self._in_pixels(recovered),
                tuple(share for share in shares[label] if share[0] != label),
            )
        return found

    def _along(
        self,
        indices: np.ndarray,
        inside: np.ndarray,
        background: whitening.Background,
        total: torch.Tensor,
        cluster: clusters.Cluster,
        recovered: Future[recovery.Recovered],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of images: scores along a cluster's direction, the noise of each, and its reach of the pattern; (n,) each.

        inside: which images, of the dataset, are the cluster's own; total: their sum; recovered: on its way.
        """
        weights, parts = _template(background, total)[:-1, 0].numpy(), []
        for some, block in self._blocks(indices):
            whitened = background.whiten(block)
            along = clusters.scores(whitened, total, torch.from_numpy(np.isin(some, inside)))
            own = clusters.own_noise(along, whitened.square().mean(1), cluster)
            reach = carriers.reach(block, recovered.result().pattern, weights)
            parts.append((along.numpy(), own.numpy(), reach))
        scores, noise, reach = map(np.concatenate, zip(*parts, strict=True))
        return scores, noise, reach

    def _total(self, indices: np.ndarray, background: whitening.Background) -> tuple[torch.Tensor, float]:
        """Sum of some whitened images, (D,) float32, and of their mean squared coordinates."""
        total, squared = torch.zeros(self._moments.sum.shape[1], dtype=torch.float32, device="cpu"), 0.0
        for _, block in self._blocks(indices):
            whitened = background.whiten(block)
            total, squared = total + whitened.sum(0), squared + float(whitened.square().mean(1).double().sum())
        return total, squared

    def shared(self, indices: np.ndarray, label: int) -> Shared | None:
        """The simple pattern that some images of a class share; None if they share none."""
        background = self._background(np.flatnonzero(self.images.labels == label))
        total, squared = self._total(indices, background)
        others = [k for k in self._large if k != label]
        recovered = self._recover(background, others, total / len(indices), squared / len(indices) ** 2)
        if recovered.basis == "dense":
            return None
        displacement = torch.from_numpy(recovered.displacement)
        return Shared(self._in_pixels(recovered), lambda indices: self._filtered(indices, background, displacement))

    def _filtered(
        self, indices: np.ndarray, background: whitening.Background, displacement: torch.Tensor
    ) -> np.ndarray:
        """Scores of images along a displacement (D,) that none of them has a part in, float32 (n,)."""
        template = _template(background, displacement)
        parts = [whitening.filtered(block, template, self.backend)[:, 0] for _, block in self._blocks(indices)]
        return torch.cat(parts).numpy()

    def _filtered_and_reach(
        self, indices: np.ndarray, background: whitening.Background, displacement: torch.Tensor, planted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_filtered`, and each image's reach of `planted`, the pattern (D,) behind the displacement; one pass."""
        template, parts = _template(background, displacement), []
        weights = template[:-1, 0].numpy()
        for _, block in self._blocks(indices):
            along = whitening.filtered(block, template, self.backend)[:, 0]
            parts.append((along.numpy(), carriers.reach(block, planted, weights)))
        scores, reach = map(np.concatenate, zip(*parts, strict=True))
        return scores, reach

    def _recover(
        self, background: whitening.Background, sources: list[int], displacement: torch.Tensor, noise: float
    ) -> recovery.Recovered:
        """The pattern behind a mean displacement; sources: the classes that its mixture speaks of."""
        means = self._whitened_means(background, sources)
        return recovery.recover(displacement.double().numpy(), noise, background, means)

    def _whitened_means(self, background: whitening.Background, classes: list[int]) -> np.ndarray:
        """(S, D) float64."""
        means = self._moments.sum[classes].double() / self._moments.count[classes, None]
        whitened: np.ndarray = background.displacements(means - background.mean).numpy()
        return whitened

    def _in_pixels(self, recovered: recovery.Recovered) -> np.ndarray:
        """float32 (C, H, W), pixel units; an estimate may lie beyond what an image can hold."""
        return np.clip(recovered.pattern / 255, -1, 1).astype(np.float32).reshape(self.images.image_shape)

    @cached_property
    def _large(self) -> list[int]:
        """Classes with images enough to compare."""
        return np.flatnonzero(self._moments.count.numpy() >= MIN_IMAGES).tolist()

    def _background(self, members: np.ndarray) -> whitening.Background:
        """Of the images that are not `members`."""
        own, _ = self._stream(members, np.zeros(len(members), np.int64))
        return whitening.background(self._moments, own, self.images.image_shape)

    def _stream(
        self,
        indices: np.ndarray,
        labels: np.ndarray,
        kept: np.ndarray = NONE,
        report: Callable[[float], None] = lambda fraction: None,
    ) -> tuple[ops.Moments, np.ndarray]:
        """Moments of some images under the given labels, block by block, and those of the images that are kept, in the
        order of `indices`: one pass."""
        total, parts, done = ops.Moments.zeros(int(labels.max()) + 1, int(np.prod(self.images.image_shape))), [], 0
        for some, block in self._blocks(indices):
            self._add(block, labels[done : done + len(some)], total)
            parts.append(block[np.isin(some, kept)])
            done += len(some)
            report(done / len(indices))
        return total, np.concatenate(parts)

    def _add(self, block: np.ndarray, labels: np.ndarray, total: ops.Moments) -> None:
        own = torch.tensor(labels, device="cpu")
        ops.moments(torch.from_numpy(block), own, classes=len(total.count), out=total, backend=self.backend)

    def _blocks(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices and images, BLOCK at a time."""
        for start, block in self.images.blocks(BLOCK, indices):
            yield indices[start : start + BLOCK], block


def _template(background: whitening.Background, direction: torch.Tensor) -> torch.Tensor:
    """(D + 1, 1), for scores along a direction (D,) of any length."""
    return background.templates(direction[:, None] / direction.norm())


def _shares(classes: list[int], mixture: np.ndarray) -> tuple[tuple[int, float], ...]:
    """(class, share), largest first."""
    return tuple(sorted(zip(classes, mixture.tolist(), strict=True), key=lambda pair: -pair[1]))


@contextmanager
def _workers(memory: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads of one torch thread each, as many as torch has here and as WORKERS_MEMORY allows, `memory` bytes each."""
    threads = torch.get_num_threads()
    workers = max(1, min(threads, MAX_WORKERS, WORKERS_MEMORY // memory))
    try:
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        with linalg.single_blas, pool:
            yield pool, workers
    finally:
        torch.set_num_threads(threads)  # of threads that are yet to be made
