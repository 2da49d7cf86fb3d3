"""The inside view of a dataset: which classes fall apart into two modes within the network that was trained on them.

A network that sends triggered images to a class recognises the trigger somewhere inside, whatever it looks like in
pixels: a warp, a tint, a patch at any place. One forward pass over a sample of every class tells, layer by layer, how
far each class falls apart (`method.modes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeGuard

import numpy as np
from scipy import special

from ..inputs import Classifier, ImageSet, Layer
from ..method import carriers as carriers_of
from ..method import modes
from ..method.class_spread import ClassSpread
from ..method.linalg import single_thread
from .budget import Budget
from .evidence import Carriers, Statistic, evenly_spaced
from .inside_class import Inside, look, needed, of_several_classes
from .predictions import Predictions
from .streams import stream

# images; of all classes together that go through the network at first; source: chosen, less than a third of an epoch's
# cost on 4 000 images, and a few hundred of each of ten classes
SAMPLE_IMAGES = 4000
# images; of one class that go through the network at first, at least and at most; source: chosen, a tenth of the least
# makes a mode; work within a class grows as the square
CLASS_SAMPLE = (100, 1000)
LOOKED_AT_AGAIN = 2  # classes; that fall apart most, and are looked at with more images; source: chosen, cost
# images; of a class that is looked at again, at most; source: chosen, so that 20 planted among them make a mode
AGAIN_IMAGES = 2000
MIN_CLASS = 30  # images; of a class, to look for two modes; source: chosen, each half has to show them
# ratio; separation from which on what a class shows inside tells its images apart; source: chosen, above what natural
# classes had on the networks that were looked at while this was built
CLEAR_SEPARATION = 8.0
COMPARED_CLASSES = 20  # classes; that tell what is usual in a network, at most; source: chosen, time grows with it
SHOWN_BESIDE = 140  # images; of other classes in a histogram; source: chosen, as many as the model's view has


@dataclass(eq=False)
class Activations:
    """What the layers of a classifier answer to the images of a set, as they are. Of images that were asked for before
    and kept, or were asked for last, no other pass is made. kept: int64 (k,), ascending; answers: of each layer, and
    the logits, (k, d); last: what was asked for, and the answers."""

    predictions: Predictions
    layers: tuple[Layer, ...]
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: list[np.ndarray] = field(default_factory=list)
    last: tuple[np.ndarray, list[np.ndarray]] | None = None

    @classmethod
    def of(cls, predictions: Predictions) -> Activations:
        return cls(predictions, predictions.classifier.layers(next(predictions.plain_inputs(np.arange(2)))))

    def run(self, indices: np.ndarray, *, keep: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
        """Of different images (n,): each layer's activations, float32 (n, channels), and logits (n, K'). keep: for the
        next time."""
        if self.last is None or not np.array_equal(indices, self.last[0]):
            self.last = None  # before there are others
            self.last = indices, self._answers(indices, keep)
        *layers, logits = self.last[1]
        return layers, logits

    def _answers(self, indices: np.ndarray, keep: bool) -> list[np.ndarray]:
        new = np.setdiff1d(indices, self.kept)
        known, answers = self.kept, self.answers
        if len(new):
            passed = self._passed(new)
            known = np.concatenate([known, new])
            answers = [np.concatenate(pair) for pair in zip(answers, passed, strict=True)] if answers else passed
        order = np.argsort(known)
        if keep:
            self.kept, self.answers = known[order], [each[order] for each in answers]
        rows = order[np.searchsorted(known, indices, sorter=order)]
        return [each[rows] for each in answers]

    def _passed(self, indices: np.ndarray) -> list[np.ndarray]:
        """Of each layer, and the logits, for images (n,) that go through the network."""
        parts = []
        for inputs in self.predictions.plain_inputs(indices):
            means, logits = self.predictions.classifier.inside(inputs, self.layers)
            parts.append([each.float().cpu().numpy() for each in (*means, logits)])
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def search_inside(
    classifier: Classifier,
    images: ImageSet,
    *,
    seed: int,
    backend: str,
    progress: Callable[[str, float], None],
) -> InsideEvidence:
    """One forward pass over a sample of every class, and how far each class falls apart, layer by layer; those that
    fall apart most are looked at again, in several layers at once.

    classifier: entered and checked for these images; backend: of the ops on its device; progress: called with (stage,
    fraction of it done). Raises InputError where the classifier gives NaN or infinities, or shows other layers from one
    pass to the next.
    """
    rows = Budget.of(classifier, images.image_shape).rows
    passes = Activations.of(Predictions(classifier, images, backend, rows))
    separations = np.full((len(images.class_names), len(passes.layers)), np.nan)
    if not passes.layers:
        return InsideEvidence(passes, (), separations, {}, np.zeros(0))
    sample = sample_of(images.labels, seed)
    labels = images.labels[sample]
    activations, logits = passes.run(sample, keep=True)
    with single_thread():
        spreads = tuple(ClassSpread.of(values, labels) for values in activations)
    large = np.flatnonzero(np.bincount(labels) >= MIN_CLASS).tolist()
    compared = evenly_spaced(np.array(large), COMPARED_CLASSES).tolist() if large else []
    usual = []
    for number, label in enumerate(large):
        progress("looking inside", number / (len(large) + LOOKED_AT_AGAIN))
        own = labels == label
        values = [each[own] for each in activations]
        with single_thread():
            others = [spread.without(label) for spread in spreads]
            separations[label] = [
                modes.held_out_separation(classes.whiten(each)) for classes, each in zip(others, values, strict=True)
            ]
            if label in compared:
                usual.append(of_several_classes(others, values, logits[own], passes.layers))
    evidence = InsideEvidence(passes, spreads, separations, {}, np.array(usual))
    widest = sorted(large, key=lambda label: -separations[label].max())[:LOOKED_AT_AGAIN]
    for number, label in enumerate(widest, len(large)):
        progress("looking inside", number / (len(large) + LOOKED_AT_AGAIN))
        members = some_of(np.flatnonzero(images.labels == label), AGAIN_IMAGES, label, seed)
        evidence.again[label] = evidence.look(label, members, keep=True)
    return evidence


def sample_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """Indices of a sample of every class, ascending: int64 (n,)."""
    present = np.unique(labels)
    each = int(np.clip(SAMPLE_IMAGES // len(present), *CLASS_SAMPLE))
    chosen = [some_of(np.flatnonzero(labels == label), each, label, seed) for label in present.tolist()]
    return np.sort(np.concatenate(chosen))


def some_of(members: np.ndarray, most: int, label: int, seed: int) -> np.ndarray:
    """At most `most` of a class's images (n,), ascending."""
    if len(members) <= most:
        return members
    return np.sort(stream(seed, f"inside, class {label}").choice(members, most, replace=False))


@dataclass(frozen=True, eq=False)
class InsideEvidence:
    """What a network shows inside; see `evidence.Evidence`.

    Statistic: `separation`, of each class at the layer where it falls apart most, or in several layers at once where it
    was looked at again. Every class is looked at in as many layers, so that comparing classes pays for looking at many.

    separations: float64 (K, layers), NaN for classes that were not looked at; again: by class, some of its images in
    several layers; usual: (k,), of all images of some classes, how much they look like those of several others.
    """

    passes: Activations
    spreads: tuple[ClassSpread, ...]
    separations: np.ndarray
    again: dict[int, Inside | None]
    usual: np.ndarray

    view = "inside"
    cross_class_p_value = None
    mark_p_values = None

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        if not self.spreads:
            return ()
        values = np.fmax.reduce(self.separations, axis=1)
        for label, seen in self.again.items():
            values[label] = max(values[label], 1.0 if seen is None else seen.separation)
        return (Statistic("separation", values),)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        if self.spreads:
            return ()
        return (f"{self.passes.predictions.classifier.source} shows no layers inside, so only its logits were used",)

    def properties(self, unconfirmed: Sequence[int]) -> dict[int, Carriers]:
        """Outliers that clearly are two things, none of which looks like several other classes."""
        seen = {label: self._all_of(label) for label in unconfirmed}
        return {label: found.carriers(()) for label, found in seen.items() if _is_clear(found)}

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        return ()

    def without(self, label: int, images: np.ndarray) -> None:
        return None

    def confirms(self, label: int) -> bool:
        """Whether over all of the class some images stand apart, and clearly, and look like those of other classes."""
        seen = self._all_of(label)
        return _is_clear(seen) and seen.several >= needed(self.usual)

    def carriers(self, label: int, called_by: str) -> Carriers:
        """The images of the mode that is planted; there is no pattern."""
        seen = self._all_of(label)
        assert seen is not None  # confirmed
        return seen.carriers(seen.sources(label))

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        """With what the network shows inside of each image, where it shows the same images: by itself, or along the
        direction that these give."""
        seen, flagged = self._all_of(label), carriers.flagged
        if not flagged.any():
            return carriers if not _is_clear(seen) else self._instead_of(carriers, label, seen)
        if not (_is_clear(seen) and seen.agrees(flagged)):
            seen = self.look(label, carriers.members, upper=special.expit(carriers.log_odds)) if self.spreads else None
        if not (_is_clear(seen) and seen.agrees(flagged)):
            return carriers
        seen = seen.towards(flagged)
        if seen.same(flagged):
            log_odds = carriers.log_odds + seen.log_odds - seen.prior
        else:  # a part of what is planted: of several patterns one, say
            log_odds = np.maximum(carriers.log_odds, seen.log_odds)
        return replace(carriers, log_odds=log_odds, flagged=log_odds > carriers_of.FLAG_LOG_ODDS)

    def _instead_of(self, carriers: Carriers, label: int, seen: Inside) -> Carriers:
        """Of a class that another view calls without telling any carrier."""
        return replace(
            carriers,
            log_odds=seen.log_odds,
            flagged=seen.flagged,
            scores=seen.scores,
            other_scores=seen.other_scores,
            sources=seen.sources(label) or carriers.sources,
        )

    def look(
        self, label: int, members: np.ndarray, *, keep: bool = False, upper: np.ndarray | None = None
    ) -> Inside | None:
        """At images (n,) of a class, beside some of other classes; keep: as for `Activations.run`; upper: as for
        `inside_class.look`."""
        labels = self.passes.predictions.images.labels
        others = evenly_spaced(np.flatnonzero(labels != label), SHOWN_BESIDE)
        activations, logits = self.passes.run(np.concatenate([members, others]), keep=keep)
        worth, layers = self.separations[label], self.passes.layers
        return look(label, members, activations, logits, self.spreads, layers, worth, upper)

    @cached_property
    def _seen(self) -> dict[int, Inside | None]:
        return {}

    def _all_of(self, label: int) -> Inside | None:
        """All images of a class."""
        if label not in self._seen:
            members = np.flatnonzero(self.passes.predictions.images.labels == label)
            again = self.again.get(label)
            if again is not None and len(again.members) == len(members):  # some of them were all
                self._seen[label] = again
            else:
                self._seen[label] = self.look(label, members) if self.spreads else None
        return self._seen[label]


def _is_clear(seen: Inside | None) -> TypeGuard[Inside]:
    return seen is not None and seen.separation >= CLEAR_SEPARATION
