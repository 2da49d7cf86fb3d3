"""The images' view of a dataset: which class hides a common pattern, which of its images carry it, what it looks like.

One pass over a bounded sample for what images look like in general, one over each class for its search, a few more over
a suspected class. Images are looked at on several levels, from their own size down to `levels.WHOLE` pixels a side, and
through windows of several sizes. Classes are searched side by side, each by one thread, so the answers are the same at
any number of threads. Memory grows neither with the number of images nor with the square of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import InputError
from ..inputs import ImageSet
from ..method import carriers as carriers_of
from ..method import cross_class, near_duplicates, shares, stats
from ..method.uploads import in_host_memory
from ..method.whitening import Whitening
from ..ops.tiles import CELL
from ..runs.run import Run
from ..runs.work import Work
from .backgrounds import gather
from .class_search import CLASS, ClassSearch, Searched
from .cross_class_carriers import CrossClassCarriers, attribute
from .elsewhere import compared
from .evidence import CROSS_CLASS, MARK, Carriers, Statistic, evenly_spaced, main_sources
from .mark_evidence import MarkEvidence, least_surplus, look_at_marks
from .passes import Passes, Template
from .placement import Placement
from .recovering import Pattern, carried_shares, in_pixels, recover, unsaturated
from .streams import stream

# values; of an image: fewer have no directions to compare; source: derived, a pattern has a place among others
MIN_VALUES = 3
# values; of an image; source: chosen, 3 x 1024 x 1024, and a class of the least size takes a few hundred MiB
MAX_VALUES = 3 * 2**20
# images; of all classes, in which what several classes share is looked for; source: chosen, as many as say enough
CROSS_CLASS_IMAGES = 16384
# images; over values of the coarsest level, from which on they say more of the background than of themselves; source:
# simulated, tests/method/test_cross_class.py
CROSS_CLASS_DEPTH = 2
# share; of a pattern's energy that must lie in a window for it to be local; source: chosen, what is left is noise
LOCAL_ENERGY = 0.9
# values; of images of other classes beside a histogram; source: chosen, each is whitened
OTHER_VALUES = 2**24
OTHER_SCORES = 4096  # images; of other classes beside a histogram, at most; source: chosen, for a smooth one


def check_size(images: ImageSet) -> None:
    """Raises InputError unless MIN_VALUES <= D <= MAX_VALUES."""
    size = int(np.prod(images.image_shape))
    if size < MIN_VALUES:
        raise InputError(f"images of at least {MIN_VALUES} values can be screened, these have {size}")
    if size > MAX_VALUES:
        raise InputError(
            f"images of at most {MAX_VALUES} values (3 x 1024 x 1024) can be screened; these have {size} "
            f"({' x '.join(map(str, images.image_shape))}): crop or resize them",
            argument=("crop", "resize"),
        )


def search_images(
    images: ImageSet,
    *,
    seed: int,
    backend: str,
    progress: Callable[[str, float], None],
    run: Run | None = None,
    placement: Placement | None = None,
) -> ImageEvidence:
    """Search every class of a set, and the classes together.

    images: that passed `check_size`; seed: of the samples; backend: of the ops; progress: called with (stage, fraction
    of it done); run: where tasks are done, None for here; placement: where the ops compute, None for host memory, and
    host memory with a run of other processes.
    """
    run = run or Run()
    passes = Passes(images, backend, placement or Placement())
    backgrounds = gather(passes, seed, run, progress_of(progress, "reading images"))
    search = ClassSearch(passes, backgrounds, seed)
    found = search.run(run, progress_of(progress, "searching classes"))
    beside = dict(compared(search, found, run, least_surplus(search)))
    marks = look_at_marks(search, beside, run)
    shared = look_across(search, run)
    progress("searching classes", 1.0)
    return ImageEvidence(search, {label: each.searched for label, each in beside.items()}, marks, shared, run)


def progress_of(progress: Callable[[str, float], None], stage: str) -> Callable[[float], None]:
    """`progress` of one stage."""
    return lambda fraction: progress(stage, fraction)


@dataclass(frozen=True, eq=False)
class Shared:
    """What images of several classes share, at the coarsest level. sampled: int64, the images that it was looked for
    in; pattern: None where nothing is shared, or where it was not looked for; note: why it was not, for the report."""

    sampled: np.ndarray
    pattern: cross_class.CrossClassPattern | None
    note: str = ""


def look_across(search: ClassSearch, run: Run) -> Shared:
    """Copies of an image count once: they lie in both halves of the search."""
    level, count = search.passes.levels[-1], len(search.passes.images)
    needed = CROSS_CLASS_DEPTH * level.size
    if count < needed:
        return Shared(
            np.zeros(0, np.int64),
            None,
            f"patterns in several classes at once were not looked for, since that takes {needed} "
            f"images of this size; these are {count}",
        )
    found: Shared = run.one(SHARED, (), search)
    return found


def _read_across(search: ClassSearch) -> tuple[Whitening, np.ndarray, np.ndarray, np.ndarray, int, str]:
    level, count, seed = len(search.passes.levels) - 1, len(search.passes.images), search.seed
    chosen = np.sort(stream(seed, "images of all classes").permutation(count)[:CROSS_CLASS_IMAGES])
    images, labels = search.passes.read(chosen, level), search.passes.images.labels[chosen]
    whitening = search.backgrounds.moments[level].whitening([])
    return whitening, images, chosen, labels, seed, search.passes.backend


def _search_across(
    whitening: Whitening, images: np.ndarray, chosen: np.ndarray, labels: np.ndarray, seed: int, backend: str
) -> Shared:
    """images: uint8 (n, C, h, w) of the coarsest level; chosen, labels: int64 (n,), theirs."""
    different = np.flatnonzero(near_duplicates.first_of(near_duplicates.digests(images)))
    order = stream(seed, "halves of all classes").permutation(different)
    return Shared(chosen[order], cross_class.search(whitening, images[order], labels[order], backend))


SHARED = Work("shared", _read_across, _search_across, (Shared, cross_class.CrossClassPattern, stats.Mode))


@dataclass(frozen=True, eq=False)
class SimplePattern:
    """pattern: float32 (C, H, W), pixel units; along: from indices of images (n,) to how far each lies along it, in
    standard deviations, float32 (n,)."""

    pattern: np.ndarray
    along: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """What the images show; see `evidence.Evidence`.

    Statistic: `image_statistic`, see `stats.class_statistics`; NaN where a class has fewer than MIN_IMAGES images
    without near duplicates. searched: what the search of each class says; marks: what a few images share in one place;
    shared: what images of several classes share; run: where tasks are done.
    """

    search: ClassSearch
    searched: dict[int, Searched]
    marks: MarkEvidence
    shared: Shared
    run: Run

    view = "images"

    @cached_property
    def statistics(self) -> tuple[Statistic, ...]:
        labels = sorted(self.searched)
        evidence = np.array([self.searched[label].evidence for label in labels])
        counts = np.array([self.searched[label].counts_for for label in labels])
        classes = len(self._passes.images.class_names)
        values, p_values = np.full(classes, np.nan), np.ones(classes)
        values[labels] = stats.class_statistics(evidence, counts)
        p_values[labels] = stats.class_p_values(evidence, self.search.looks)
        return (Statistic("image_statistic", values, class_p_values=p_values),)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        parts = sum(searched.blocks for searched in self.searched.values() if searched.blocks > 1)
        large = [label for label, searched in sorted(self.searched.items()) if searched.blocks > 1]
        notes = [self.shared.note] if self.shared.note else []
        if large:
            images = sum(len(self.searched[label].images) for label in large)
            where = "" if in_host_memory(self._passes.device) else "; in host memory, not on the device"
            notes.append(
                f"classes of more than {self.search.most} images were searched in blocks: {len(large)} of "
                f"{len(self.searched)}, {images} images without copies in {parts} blocks, each image in one{where}"
            )
        return (*notes, *self._notes_of_marks, *self._passes.placement.notes)

    @property
    def _notes_of_marks(self) -> Iterator[str]:
        """Of marks that make no class an outlier."""
        images = self._passes.images
        for label, (found, count) in sorted(self.marks.natural.items()):
            level = self._passes.levels[found.level]
            top, left, height, width = level.in_image(found.window, images.image_shape)
            yield (
                f"{count} images of class {images.class_names[label]} share something in rows {top} to "
                f"{top + height - 1}, columns {left} to {left + width - 1}, that hardly any image of other classes "
                "has, and look like their class: a mark of their source, or poison whose labels are right"
            )

    @property
    def mark_p_values(self) -> np.ndarray:
        return self.marks.p_values

    @property
    def cross_class_p_value(self) -> float:
        return 1.0 if self.shared.pattern is None else self.shared.pattern.p_value

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        """The classes whose images that carry what several classes share look like another class than their own.

        None if most of the carriers are in classes that are known to hold a pattern: it is theirs."""
        labels, pattern = self._passes.images.labels, self.shared.pattern
        if pattern is None or np.isin(labels[self.shared.sampled[pattern.carriers]], known).mean() > 0.5:
            return ()
        return tuple(self._across.sources) if self._across is not None else ()

    def confirms(self, label: int) -> bool:
        return True

    def carriers(self, label: int, called_by: str) -> Carriers:
        """The images of a class that carry what its best direction or its mark shares, or what several classes
        share."""
        if called_by == CROSS_CLASS:
            assert self._across is not None  # it called the class
            return self._carriers_across(label, self._across)
        searched = self.searched[label]
        if called_by == MARK:
            searched = replace(searched, best=self.marks.marks[label])
        found: Carriers = self.run.one(CARRIERS, (label, searched), self.search, kinds=SEARCHED_KINDS)
        return found

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        return carriers

    def properties(self, unconfirmed: Sequence[int]) -> dict[int, Carriers]:
        """By class, the images that carry what most of the class shares and other classes do not."""
        labels = [label for label, searched in sorted(self.searched.items()) if searched.common is not None]
        tasks = [(label, self.searched[label]) for label in labels]
        return dict(zip(labels, self.run.all(PROPERTIES, tasks, self.search, kinds=SEARCHED_KINDS), strict=True))

    def without(self, label: int, images: np.ndarray) -> ImageEvidence:
        """With the class searched again without some of its images, and nothing said of what classes share."""
        found = [(label, self.search.again(self.run, label, images))]
        beside = dict(compared(self.search, found, self.run, least_surplus(self.search)))
        searched = {other: each for other, each in self.searched.items() if other != label}
        if label in beside:
            searched[label] = beside[label].searched
        marks = look_at_marks(self.search, beside, self.run)
        return replace(self, searched=searched, marks=marks, shared=replace(self.shared, pattern=None))

    def shared_pattern(self, indices: np.ndarray, label: int) -> SimplePattern | None:
        """The simple pattern that some images of a class share; None if they share none."""
        whitening = self.search.backgrounds.without(label)[0]
        pattern = recover(self._passes, whitening, 0, indices, others(self.search, label))
        if not pattern.is_simple:
            return None

        def along(images: np.ndarray) -> np.ndarray:
            carried = carried_shares(self._passes, pattern, images)
            lie: np.ndarray = (carried.share / np.median(carried.noise)).astype(np.float32)
            return lie

        return SimplePattern(in_pixels(self._passes, pattern), along)

    @property
    def _passes(self) -> Passes:
        return self.search.passes

    @cached_property
    def _across(self) -> CrossClassCarriers | None:
        if self.shared.pattern is None:
            return None
        return attribute(self.search, self.run, self.shared.pattern.direction)

    def _carriers_across(self, label: int, across: CrossClassCarriers) -> Carriers:
        labels = self._passes.images.labels
        members = np.flatnonzero(labels == label)
        log_odds = across.log_odds[members]
        return Carriers(
            members=members,
            log_odds=log_odds,
            flagged=log_odds > carriers_of.FLAG_LOG_ODDS,
            scores=across.scores[members],
            other_scores=across.scores[evenly_spaced(np.flatnonzero(labels != label), OTHER_SCORES)],
            pattern=in_pixels(self._passes, across.pattern),
            sources=main_sources(across.sources[label]),
        )


def others(search: ClassSearch, label: int) -> list[int]:
    """The classes that a pattern in a class may come from."""
    return [k for k in search.large if k != label]


def _carriers_within(search: ClassSearch, label: int, searched: Searched) -> Carriers:
    """The images of a class that carry what its best direction shares."""
    assert searched.best is not None  # a class without a direction is no outlier
    passes, labels, level = search.passes, search.passes.images.labels, searched.best.level
    members = np.flatnonzero(labels == label)
    whitening = search.backgrounds.without(label)[level]
    pattern = recover(passes, whitening, level, searched.members, others(search, label))
    carried = carried_shares(passes, pattern, members)
    log_odds = shares.log_odds(carried, unsaturated(passes, pattern, members))
    most = max(64, min(OTHER_SCORES, OTHER_VALUES // passes.size))
    elsewhere = carried_shares(passes, pattern, evenly_spaced(np.flatnonzero(labels != label), most))
    unit = float(np.median(carried.noise))
    return Carriers(
        members=members,
        log_odds=log_odds,
        flagged=log_odds > carriers_of.FLAG_LOG_ODDS,
        scores=carried.share / unit,
        other_scores=elsewhere.share / unit,
        pattern=in_pixels(passes, pattern),
        sources=main_sources(pattern.sources),
        window=_window(passes.images.image_shape, searched, pattern),
    )


def _carriers_of_property(search: ClassSearch, label: int, searched: Searched) -> Carriers:
    """The images of a class that carry what most of it shares."""
    common, level, labels = searched.common, len(search.passes.levels) - 1, search.passes.images.labels
    assert common is not None
    members, template = np.flatnonzero(labels == label), Template(common.template, common.offset)
    scores = search.passes.scores(members, level, template)
    elsewhere = evenly_spaced(np.flatnonzero(labels != label), OTHER_SCORES)
    flagged = scores > common.cut
    whitening = search.backgrounds.without(label)[level]
    pattern: Pattern = recover(search.passes, whitening, level, members[flagged], others(search, label))
    return Carriers(
        members=members,
        log_odds=common.log_odds(scores),
        flagged=flagged,
        scores=scores,
        other_scores=search.passes.scores(elsewhere, level, template),
        pattern=in_pixels(search.passes, pattern),
        sources=(),
    )


def _window(
    image_shape: tuple[int, int, int], searched: Searched, pattern: Pattern
) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) in pixels of the window that shows the pattern best, where nearly all of the
    pattern lies in it; None for a pattern that is elsewhere too."""
    assert searched.best is not None
    channels, height, width = pattern.whitening.level.shape
    top, left, tall, wide = (CELL * place for place in searched.best.window)
    energy = np.square(pattern.recovered.pattern.reshape(channels, height, width)).sum(0)
    inside = energy[top : top + tall, left : left + wide].sum()
    if inside < LOCAL_ENERGY * energy.sum() or (tall >= height and wide >= width):
        return None
    return pattern.whitening.level.in_image(searched.best.window, image_shape)


SEARCHED_KINDS = CLASS.kinds
CARRIERS = Work("carriers", _carriers_within, None, (Carriers,))
PROPERTIES = Work("properties", _carriers_of_property, None, (Carriers,))
