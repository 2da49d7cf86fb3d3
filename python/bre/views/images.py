"""The images' view of a dataset: which class holds a common pattern, which images carry it, what it looks like.

One pass over all images for the moments, one over each class for its search, three more over a suspected class.
Classes are searched side by side, each by one thread, so that the answers are the same at any number of threads.
Memory: O(D^2) and `class_search.MAX_SEARCH` images per worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..errors import InputError
from ..inputs import ImageSet
from ..method import carriers as carriers_of
from ..method import clusters, cross_class, recovery, whitening
from .class_search import MAX_SEARCH, MIN_IMAGES, ClassSearch, Found
from .cross_class_carriers import CrossClassCarriers, attribute, by_share, class_means
from .evidence import CROSS_CLASS, Carriers, Statistic, evenly_spaced, main_sources
from .passes import Passes, template_of
from .scheduler import workers
from .streams import stream

MIN_VALUES = 3  # D: fewer have no directions to compare
MAX_VALUES = 12288  # D: the covariance takes 8 D^2 bytes, five times over
MAX_SUMS = 2**29  # K x D: the classes' sums take 8 bytes each
CROSS_CLASS_IMAGES = 16384  # of all classes, that are searched for cross-class patterns
CROSS_CLASS_DEPTH = 2  # images over D from which on they say more of the background than of themselves


def check_size(images: ImageSet) -> None:
    """Raises InputError unless MIN_VALUES <= D <= MAX_VALUES, and for labels too large for tables over classes."""
    size, classes = int(np.prod(images.image_shape)), len(images.class_names)
    if size < MIN_VALUES:
        raise InputError(f"images of at least {MIN_VALUES} values can be screened, these have {size}")
    if size > MAX_VALUES:
        raise InputError(
            f"images of at most {MAX_VALUES} values (3 x 64 x 64) can be screened; "
            f"these have {size} ({' x '.join(map(str, images.image_shape))}): resize them first"
        )
    if classes * size > MAX_SUMS:
        raise InputError(
            f"labels up to {classes - 1} are too many for images of {size} values: number the classes from 0"
        )


def search_images(
    images: ImageSet, *, seed: int, backend: str, progress: Callable[[str, float], None]
) -> ImageEvidence:
    """Search every class of a set, and the classes together.

    images: that passed `check_size`; seed: of the samples; backend: of the ops; progress: called with (stage, fraction
    of it done).
    """
    passes, everything = Passes(images, backend), np.arange(len(images))
    sampled = stream(seed, "images of all classes").permutation(everything)[:CROSS_CLASS_IMAGES]
    moments, sample = passes.moments(
        everything, images.labels, sampled, lambda fraction: progress("reading images", fraction)
    )
    search = ClassSearch(passes, moments, seed)
    deep = len(images) >= CROSS_CLASS_DEPTH * passes.size
    statistics, p_values = np.full(len(images.class_names), np.nan), np.ones(len(images.class_names))
    found, shared = {}, None
    with workers(search.worker_memory) as side_by_side:
        together = None
        if deep:
            in_order = sample[sampled.argsort().argsort()]
            together = side_by_side.pool.submit(cross_class.search, search.common, in_order, backend)
        report = progress_of(progress, "searching classes")
        for label, distinct, best in search.run(side_by_side, report):
            if distinct < MIN_IMAGES:
                continue
            statistics[label] = 1.0
            if best is not None:
                found[label] = best
                statistics[label], p_values[label] = best.cluster.statistic, best.cluster.mode.p_value
        if together is not None:
            shared = together.result()
    progress("searching classes", 1.0)
    return ImageEvidence(
        search,
        found,
        shared,
        sampled,
        Statistic("image_statistic", statistics, class_p_values=p_values),
        notes=() if deep else (_shallow_note(len(images), passes.size),),
    )


def progress_of(progress: Callable[[str, float], None], stage: str) -> Callable[[float], None]:
    """`progress` of one stage."""
    return lambda fraction: progress(stage, fraction)


def _shallow_note(count: int, size: int) -> str:
    return (
        f"cross-class patterns were not searched for: that takes {CROSS_CLASS_DEPTH * size} images of this size, these "
        f"are {count}"
    )


@dataclass(frozen=True, eq=False)
class Shared:
    """pattern: float32 (C, H, W), pixel units; along: from indices of images (n,) to how far each lies along it, in
    standard deviations, float32 (n,)."""

    pattern: np.ndarray
    along: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """Evidence from the images; see `evidence.Evidence`.

    Statistic: `image_statistic`, the log-likelihood ratio of a second mode times its distance, on the scale of
    `clusters.Cluster.statistic`; NaN where a class has fewer than MIN_IMAGES images without near duplicates. found: the
    best cluster of each class that has one; shared: the cross-class pattern; sampled: int64 (n,), the images that
    were searched for it.
    """

    search: ClassSearch
    found: dict[int, Found]
    shared: cross_class.CrossClassPattern | None
    sampled: np.ndarray
    statistic: Statistic
    notes: tuple[str, ...]

    view = "images"

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (self.statistic,)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def cross_class_p_value(self) -> float:
        return 1.0 if self.shared is None else self.shared.p_value

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        """The classes whose carriers of a cross-class pattern look like another class than their own.

        None if most of the carriers are in classes that are known to hold a pattern: then it is theirs."""
        labels = self._passes.images.labels
        if self.shared is None or np.isin(labels[self.sampled[self.shared.carriers]], known).mean() > 0.5:
            return ()
        return tuple(self._across.sources) if self._across is not None else ()

    def confirms(self, label: int) -> bool:
        return True

    def carriers(self, label: int, called_by: str) -> Carriers:
        """The carriers, in a class, of the pattern of its best cluster, or of a cross-class pattern."""
        if called_by == CROSS_CLASS:
            assert self._across is not None  # it called the class
            return self._carriers_across(label, self._across)
        return self._carriers_within(label, self.found[label])

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        return carriers

    def shared_pattern(self, indices: np.ndarray, label: int) -> Shared | None:
        """The simple pattern that some images of a class share; None if they share none."""
        background = self._background(np.flatnonzero(self._passes.images.labels == label))
        total, squared = self._passes.total(indices, background)
        noise = squared / len(indices) ** 2
        recovered = self._recover(background, self._others(label), total / len(indices), noise)
        if recovered.basis == "dense":
            return None
        displacement = torch.from_numpy(recovered.displacement)
        return Shared(
            self._in_pixels(recovered), lambda indices: self._passes.scores(indices, background, displacement)
        )

    @property
    def _passes(self) -> Passes:
        return self.search.passes

    @cached_property
    def _across(self) -> CrossClassCarriers | None:
        if self.shared is None:
            return None
        search = self.search
        return attribute(search.passes, search.everything, search.common, self.shared.direction, search.large)

    def _carriers_within(self, label: int, found: Found) -> Carriers:
        labels = self._passes.images.labels
        members = np.flatnonzero(labels == label)
        background, others = self._background(members), self._others(label)
        total, _ = self._passes.total(found.members, background)
        noise = found.cluster.noise / len(found.members)
        threads = torch.get_num_threads()  # told to the other thread, since it puts back the number that it began with
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            future = pool.submit(self._recover, background, others, total / len(found.members), noise)
            along, own_noise, unsaturated = self._along(members, found, background, total, future)
            recovered = future.result()
        log_odds = carriers_of.log_odds(along, own_noise, unsaturated, found.cluster.mode.centre)
        elsewhere = evenly_spaced(np.flatnonzero(labels != label), MAX_SEARCH)
        return Carriers(
            members=members,
            log_odds=log_odds,
            flagged=log_odds > carriers_of.FLAG_LOG_ODDS,
            scores=along,
            other_scores=self._passes.scores(elsewhere, background, total),
            pattern=self._in_pixels(recovered),
            sources=main_sources(by_share(others, recovered.mixture)),
        )

    def _carriers_across(self, label: int, across: CrossClassCarriers) -> Carriers:
        labels = self._passes.images.labels
        members = np.flatnonzero(labels == label)
        log_odds = across.log_odds[members]
        return Carriers(
            members=members,
            log_odds=log_odds,
            flagged=log_odds > carriers_of.FLAG_LOG_ODDS,
            scores=across.scores[members],
            other_scores=across.scores[evenly_spaced(np.flatnonzero(labels != label), MAX_SEARCH)],
            pattern=self._in_pixels(across.recovered),
            sources=main_sources(across.sources[label]),
        )

    def _along(
        self,
        indices: np.ndarray,
        found: Found,
        background: whitening.Background,
        total: torch.Tensor,
        recovered: Future[recovery.Recovered],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of images: scores along a cluster's direction, the noise of each, and its unsaturated share of the pattern;
        (n,) each. total: the sum of the cluster's images; recovered: on its way."""
        weights, parts = template_of(background, total)[:-1, 0].numpy(), []
        for rows, block in self._passes.blocks(indices):
            whitened = background.whiten(block)
            along = clusters.z_scores(whitened, total, torch.from_numpy(np.isin(rows, found.members)))
            noise = clusters.own_noise(along, whitened.square().mean(1), found.cluster)
            unsaturated = carriers_of.unsaturated_share(block, recovered.result().pattern, weights)
            parts.append((along.numpy(), noise.numpy(), unsaturated))
        scores, noises, unsaturated = map(np.concatenate, zip(*parts, strict=True))
        return scores, noises, unsaturated

    def _recover(
        self, background: whitening.Background, sources: list[int], displacement: torch.Tensor, noise: float
    ) -> recovery.Recovered:
        """The pattern behind a mean displacement; sources: the classes that its mixture speaks of."""
        means = class_means(self.search.everything, background, sources)
        return recovery.recover(displacement.double().numpy(), noise, background, means)

    def _in_pixels(self, recovered: recovery.Recovered) -> np.ndarray:
        """float32 (C, H, W), pixel units; an estimate may lie beyond what an image can hold."""
        clipped = np.clip(recovered.pattern / 255, -1, 1).astype(np.float32)
        return clipped.reshape(self._passes.images.image_shape)

    def _others(self, label: int) -> list[int]:
        return [k for k in self.search.large if k != label]

    def _background(self, members: np.ndarray) -> whitening.Background:
        """Of the images that are not `members`."""
        return self._passes.background(members, self.search.everything)
