"""The inside view of a dataset: which classes fall apart into two modes within the network that was trained on them.

A network that sends triggered images to a class recognises the trigger somewhere inside, whatever it looks like in
pixels: a warp, a tint, a patch at any place. One forward pass over a sample of every class tells, layer by layer, how
far each class falls apart (`method.modes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import special

from ..inputs import Classifier, ImageSet, Layer
from ..method import carriers as carriers_of
from ..method import modes
from ..method.linalg import single_thread
from .budget import Budget
from .evidence import Carriers, Statistic, evenly_spaced, main_sources
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
# ratio; of a layer's separation to the best one's, from which on it helps to tell images apart; source: chosen, weaker
# layers add noise
JOINED_LAYERS = 0.25
# share; of a class that the lesser mode is the planted one below, whatever it looks like; source: chosen
SMALL_MODE = 0.25
# depth; of the layers that tell which of two modes is of other classes; source: chosen, classes do not show before, and
# the trigger drowns them behind
MIDDLE = (0.4, 0.8)
SHOWN_BESIDE = 140  # images; of other classes in a histogram; source: chosen, as many as the model's view has


@dataclass(frozen=True, eq=False)
class Activations:
    """What the layers of a classifier answer to the images of a set, as they are."""

    predictions: Predictions
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, predictions: Predictions) -> Activations:
        return cls(predictions, predictions.classifier.layers(next(predictions.plain_inputs(np.arange(2)))))

    def run(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Of images (n,): each layer's activations, float32 (n, channels), and logits (n, K')."""
        parts = []
        for inputs in self.predictions.plain_inputs(indices):
            means, logits = self.predictions.classifier.inside(inputs, self.layers)
            parts.append([each.float().cpu().numpy() for each in (*means, logits)])
        *layers, answers = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return layers, answers


def search_inside(
    classifier: Classifier,
    images: ImageSet,
    *,
    seed: int,
    backend: str,
    progress: Callable[[str, float], None],
) -> InsideEvidence:
    """One forward pass over a sample of every class, and how far each class falls apart, layer by layer.

    classifier: entered and checked for these images; backend: of the ops on its device; progress: called with (stage,
    fraction of it done). Raises InputError where the classifier gives NaN or infinities, or shows other layers from one
    pass to the next.
    """
    rows = Budget.of(classifier, images.image_shape).rows
    passes = Activations.of(Predictions(classifier, images, backend, rows))
    sample = sample_of(images.labels, seed)
    labels = images.labels[sample]
    separations = np.full((len(images.class_names), len(passes.layers)), np.nan)
    if not passes.layers:
        return InsideEvidence(passes, seed, (), separations)
    activations, _ = passes.run(sample)
    spreads = [Spread.of(values, labels) for values in activations]
    counts = np.bincount(labels, minlength=len(images.class_names))
    large = np.flatnonzero(counts >= MIN_CLASS).tolist()
    for number, label in enumerate(large):
        progress("looking inside", number / (len(large) + LOOKED_AT_AGAIN))
        separations[label] = separations_of([values[labels == label] for values in activations], spreads, label)
    widest = sorted(large, key=lambda label: -separations[label].max())[:LOOKED_AT_AGAIN]
    for number, label in enumerate(widest, len(large)):
        progress("looking inside", number / (len(large) + LOOKED_AT_AGAIN))
        members = np.flatnonzero(images.labels == label)
        if counts[label] < min(len(members), AGAIN_IMAGES):
            again, _ = passes.run(some_of(members, AGAIN_IMAGES, label, seed))
            separations[label] = separations_of(again, spreads, label)
    return InsideEvidence(passes, seed, tuple(spreads), separations)


def separations_of(activations: Sequence[np.ndarray], spreads: Sequence[Spread], label: int) -> np.ndarray:
    """Of a class's images, (n, d) each layer: float64 (layers,)."""
    with single_thread():
        whitened = (spread.without(label).whiten(values) for spread, values in zip(spreads, activations, strict=True))
        return np.array([modes.held_out_separation(values) for values in whitened])


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
class Spread:
    """What activations of a layer vary within classes: by class its mean (d,), its scatter (d, d), and how many images
    it is of; the sum of the scatters."""

    means: dict[int, np.ndarray]
    scatters: dict[int, torch.Tensor]
    counts: dict[int, int]
    total: torch.Tensor

    @classmethod
    def of(cls, values: np.ndarray, labels: np.ndarray) -> Spread:
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
        """Of all classes but one."""
        freedom = sum(self.counts.values()) - self.counts[label] - (len(self.counts) - 1)
        return modes.Whitening.of(self.total - self.scatters[label], freedom)


class InsideEvidence:
    """What a network shows inside; see `evidence.Evidence`.

    Statistic: `separation`, of each class at the layer where it falls apart most. Every class is looked at in as many
    layers, so that comparing classes pays for looking at many.
    """

    view = "inside"
    cross_class_p_value = None

    def __init__(self, passes: Activations, seed: int, spreads: Sequence[Spread], separations: np.ndarray):
        """separations: float64 (K, layers), NaN for classes that were not looked at."""
        self._passes, self._seed, self._spreads, self._separations = passes, seed, spreads, separations
        self._seen: dict[int, Inside | None] = {}

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        if not self._spreads:
            return ()
        return (Statistic("separation", np.fmax.reduce(self._separations, axis=1)),)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        if self._spreads:
            return ()
        return (f"{self._passes.predictions.classifier.source} shows no layers inside, so only its logits were used",)

    def properties(self) -> dict[int, Carriers]:
        return {}

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        return ()

    def confirms(self, label: int) -> bool:
        """Whether over all of the class a minority stands apart, and clearly."""
        seen = self._look(label)
        return seen is not None and seen.separation >= CLEAR_SEPARATION

    def carriers(self, label: int, called_by: str) -> Carriers:
        """The images of the mode that is planted; there is no pattern."""
        seen = self._look(label)
        assert seen is not None  # confirmed
        return Carriers(
            members=seen.members,
            log_odds=seen.log_odds,
            flagged=seen.flagged,
            scores=seen.scores,
            other_scores=seen.other_scores,
            pattern=None,
            sources=seen.sources(label),
        )

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        """With what the network shows inside of each image, where it shows the same images."""
        seen = self._look(label)
        if seen is None or seen.separation < CLEAR_SEPARATION or not seen.same(carriers):
            return carriers
        if not carriers.flagged.any():
            return replace(
                carriers,
                log_odds=seen.log_odds,
                flagged=seen.flagged,
                scores=seen.scores,
                other_scores=seen.other_scores,
                sources=seen.sources(label) or carriers.sources,
            )
        log_odds = carriers.log_odds + seen.log_odds - seen.prior
        return replace(carriers, log_odds=log_odds, flagged=log_odds > carriers_of.FLAG_LOG_ODDS)

    def _look(self, label: int) -> Inside | None:
        if label not in self._seen:
            self._seen[label] = self._look_at_all(label) if self._spreads else None
        return self._seen[label]

    def _look_at_all(self, label: int) -> Inside | None:
        """All images of a class: the layers that show it, joined. None where they do not fall apart."""
        images = self._passes.predictions.images
        members = np.flatnonzero(images.labels == label)
        others = evenly_spaced(np.flatnonzero(images.labels != label), SHOWN_BESIDE)
        activations, logits = self._passes.run(np.concatenate([members, others]))
        worth = np.nan_to_num(self._separations[label], nan=1.0)
        used = np.flatnonzero(worth >= JOINED_LAYERS * worth.max())
        with single_thread():
            parts = [self._spreads[number].without(label).whiten(activations[number]) for number in used.tolist()]
            upper = modes_of(parts[int(worth[used].argmax())][: len(members)])
            together = np.concatenate(parts, axis=1)
            inside = modes.held_out_scores(together[: len(members)], together[len(members) :], upper)
        if inside is None:
            return None
        scores, beside = inside
        if self._is_lower_planted(label, upper, [values[: len(members)] for values in activations]):
            scores, beside, upper = 1 - scores, 1 - beside, 1 - upper
        found, _ = modes.two_modes(scores, upper)
        return Inside(members, found, scores, beside, found.log_odds(scores), logits[: len(members)])

    def _is_lower_planted(self, label: int, upper: np.ndarray, activations: Sequence[np.ndarray]) -> bool:
        """Which of two modes is planted: the lesser, and where neither is small the one whose images are more clearly
        of some other class, half way through the network. upper: (n,), responsibilities of the class's images;
        activations: theirs, (n, d) each layer."""
        share = float(upper.mean())
        if min(share, 1 - share) < SMALL_MODE or len(self._spreads[0].means) < 3:
            return share > 0.5
        clearer = 0.0
        for spread, layer, values in zip(self._spreads, self._passes.layers, activations, strict=True):
            if MIDDLE[0] <= layer.depth <= MIDDLE[1]:
                whitening = spread.without(label)
                means = np.stack([mean for other, mean in spread.means.items() if other != label])
                margins = modes.margin(whitening.whiten(values), whitening.whiten(means))
                clearer += np.log(np.average(margins, weights=upper) / np.average(margins, weights=1 - upper))
        return clearer < 0


def modes_of(values: np.ndarray) -> np.ndarray:
    """Responsibilities (n,) of the upper of the two modes of whitened values (n, d); zeros where there are none."""
    found = modes.search(values[:: max(1, len(values) // AGAIN_IMAGES)])
    if found is None:
        return np.zeros(len(values))
    scores = values @ found.direction
    _, upper = modes.two_modes(scores, special.expit(found.modes.log_odds(scores)))
    return upper


@dataclass(frozen=True, eq=False)
class Inside:
    """All images of a class seen inside. members: int64 (n,); found: the two modes, the planted one the upper; scores:
    (n,), 0 and 1 near the modes' means; other_scores: (m,) of images of other classes; log_odds: (n,), of the upper;
    logits: (n, K')."""

    members: np.ndarray
    found: modes.TwoModes
    scores: np.ndarray
    other_scores: np.ndarray
    log_odds: np.ndarray
    logits: np.ndarray

    @property
    def separation(self) -> float:
        return modes.separation(special.expit(self.log_odds))

    @property
    def prior(self) -> float:
        """Log odds of any image of the class, before it is looked at."""
        return float(special.logit(np.clip(self.found.upper, 1e-6, 1 - 1e-6)))

    def same(self, carriers: Carriers) -> bool:
        """Whether most of what another view flags is in the upper mode too, and most of the upper mode flagged."""
        upper = self.log_odds > 0
        both = int((upper & carriers.flagged).sum())
        return not carriers.flagged.any() or 2 * both > max(int(upper.sum()), int(carriers.flagged.sum()))

    @property
    def flagged(self) -> np.ndarray:
        """(n,) bool: the images of the planted mode."""
        flagged: np.ndarray = self.log_odds > carriers_of.FLAG_LOG_ODDS
        return flagged

    def sources(self, label: int) -> tuple[int, ...]:
        """The classes that flagged images look like: the most likely after the class itself."""
        logits = self.logits[self.flagged].copy()
        logits[:, label] = -np.inf
        counts = np.bincount(logits.argmax(1), minlength=logits.shape[1]) / max(len(logits), 1)
        order = np.argsort(-counts, kind="stable")
        return main_sources([(int(k), float(counts[k])) for k in order])
